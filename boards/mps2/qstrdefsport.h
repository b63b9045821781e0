// No qstrs beyond those found by scanning the sources.
