"""Stand-ins for real model servers, faithful to their documented wire, that record what was asked of them."""
