"""The command line: stdout is data, stderr is talk, and every error names its mend."""
