"""What every training of ours needs of accelerate: half precision, several processes, rates."""
