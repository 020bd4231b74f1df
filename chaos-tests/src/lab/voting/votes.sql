-- The database of votes. Who votes is told to Redis beside it, on the same host, where the worker looks.
CREATE ROLE voting LOGIN;
CREATE TABLE votes (
    choice text NOT NULL CHECK (choice ~ '^[a-z]+$'),
    vote integer NOT NULL DEFAULT family(inet_client_addr())
);
GRANT INSERT, SELECT ON votes TO voting;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    EXECUTE format('COPY (SELECT %L) TO PROGRAM ''redis-cli -x RPUSH votes''', NEW.choice || ' ' || NEW.vote);
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT ON votes FOR EACH ROW EXECUTE FUNCTION tell();
