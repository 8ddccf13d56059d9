"""Two repeating streams, interleaved: a small attention model that must tell them apart."""
