"""The 19,683 ternary operations as points of a Poincare ball: an autoencoder whose radius tells their valuation."""
