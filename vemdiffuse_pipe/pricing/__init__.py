"""What a run costs: price of a plan, price of a run, the measured block."""
