"""`DictMemoryStore` keeps the contract of blocks."""

from __future__ import annotations

from tests.contract.block_contents import BlockContentContract
from tests.contract.block_ends import BlockEndContract
from tests.contract.block_errors import BlockErrorContract
from tests.contract.blocks_left_open import BlockLeftOpenContract
from tests.memory_stores import MemoryStores, MemoryStoresInTurn


class TestBlockContent(MemoryStoresInTurn, BlockContentContract): ...


class TestBlockEnds(MemoryStores, BlockEndContract): ...


class TestBlockErrors(MemoryStores, BlockErrorContract): ...


class TestBlocksLeftOpen(MemoryStores, BlockLeftOpenContract): ...
