"""What this node can do: cards, offers, and the backends behind them."""
