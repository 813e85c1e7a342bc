"""Where a task goes: tasks, the fleet, policies, prices, fairness, and the queue that dispatches."""
