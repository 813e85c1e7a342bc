"""The analyst's chat: a catalogue of questions, each answered from rows of evidence and from the record alone."""
