"""The command line: one thin file per verb, loaded only when its verb is used."""
