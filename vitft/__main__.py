"""What ``python -m vitft``, ``accelerate launch -m vitft`` and ``torchrun -m vitft`` run."""

from vitft.cli import main

# Loader workers import this module again under another name; only the first one is the command.
if __name__ == "__main__":
    main()
