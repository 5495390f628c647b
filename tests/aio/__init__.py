"""Stores, caches, watches and listeners for asyncio."""
