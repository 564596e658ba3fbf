"""The APIs that llama-server speaks: one file a dialect. This room knows no engine and no HTTP."""
