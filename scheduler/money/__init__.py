"""What work costs and may cost: budgets, accounts, energy, carbon, tariffs."""
