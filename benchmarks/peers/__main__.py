"""`python -m benchmarks.peers`."""

from benchmarks.peers.side_by_side import main

if __name__ == "__main__":
    main()
