"""What `make bench` runs: this server and a bare pass-through, side by side, against one fake vendor."""
