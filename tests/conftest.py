"""Makes `tiny`, the hand-sized documents and shards of these tests, importable from every test folder."""
