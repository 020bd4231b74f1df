"""The worker of the voting application: it takes votes out of Redis and counts them in PostgreSQL.

worker.py QUEUE DATABASE. A new connection for each vote: it is as good as the fabric is at that moment.
"""

import socket
import subprocess
import sys
import time

QUEUE, DATABASE = sys.argv[1:]
PSQL = ["psql", "-XAtq", "-h", DATABASE, "-U", "voting", "-d", "dbname=postgres connect_timeout=10", "-v", "ON_ERROR_STOP=1"]
COUNT = "INSERT INTO results (choice, vote, work) VALUES (:'choice', :vote, :work)"


def take():
    """The next vote, and over which family Redis gave it."""
    with socket.create_connection((QUEUE, 6379), timeout=5) as redis:
        redis.sendall(b"LPOP votes\r\n")
        answer = redis.makefile("rb")
        length = int(answer.readline()[1:])
        vote = answer.read(length).decode().split() if length > 0 else None
        return vote, 6 if ":" in redis.getpeername()[0] else 4


def count(choice, vote, work):
    values = {"choice": choice, "vote": vote, "work": work}
    settings = [word for name, value in values.items() for word in ("-v", f"{name}={value}")]
    while subprocess.run(PSQL + settings, input=COUNT, text=True).returncode != 0:
        time.sleep(0.2)


while True:
    try:
        vote, family = take()
    except OSError as error:
        print(error, file=sys.stderr, flush=True)
        vote = None
    if vote:
        count(*vote, family)
    else:
        time.sleep(0.1)
