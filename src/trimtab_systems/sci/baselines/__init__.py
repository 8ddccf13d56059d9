"""What the write-up's network is measured against: a flat Transformer, and an LSTM with attention."""
