"""How well a model judges: labelled files, probes, calibration and scores."""
