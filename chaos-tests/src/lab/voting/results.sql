-- The database of results: each counted vote, with the families over which it was voted, taken and counted.
CREATE ROLE voting LOGIN;
CREATE TABLE results (
    choice text NOT NULL,
    vote integer NOT NULL,
    work integer NOT NULL,
    result integer NOT NULL DEFAULT family(inet_client_addr())
);
GRANT INSERT, SELECT ON results TO voting;
