"""What every program of redis-compat shares: launching servers, speaking RESP, counting results."""
