"""``python -m simulations``: as ``atmosphere-p2p simulate``."""

from simulations.cli import simulate

if __name__ == "__main__":
    simulate(prog_name="simulate")
