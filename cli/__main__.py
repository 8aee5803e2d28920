"""`python -m cli`, as the supervisor starts each process."""

from cli import main

main()
