"""The desk under load and under faults: readers and sessions side by side, races to sign, kills, a full disk."""
