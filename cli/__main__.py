"""`python -m cli`, by which the supervisor starts each process."""

from cli import main

main()
