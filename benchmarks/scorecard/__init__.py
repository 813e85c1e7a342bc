"""The scorecard: how well every agent judges, beside rivals."""
