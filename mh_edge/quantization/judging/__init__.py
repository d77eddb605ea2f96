"""What a quantized file lost and gained: figures on data, times, and the gates that judge by them."""
