"""The parts of the scripted engine: rules, words, the pen that writes, instances of schemas."""
