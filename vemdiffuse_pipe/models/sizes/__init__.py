"""What a network's sizes say of it: context, tiles, operations, memory."""
