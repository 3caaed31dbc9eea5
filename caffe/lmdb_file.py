"""Reading an LMDB without trusting it: LMDB itself believes what a damaged file says, and ends the process.

An LMDB is a B+ tree of pages (data format 1, that of LMDB 0.9). A page begins with its number, u64, and u16 flags at
10; u16 at 12 is where its list of nodes ends, a list of u16 places from 16 on. A node: u16 + u16 size (or, in a branch,
u16 * 3 number of the page below), u16 flags, u16 length of the key, key, value. A value too large for a page lies in
pages of its own, whose number stands in its place. Pages 0 and 1 say where the tree begins; that of the later
transaction counts. Every number is compared with the file before it is followed.
"""

import os
import struct
import threading
import weakref
from collections.abc import Iterator

from caffe.errors import CaffeError
from caffe.regular import open_file

FILE = "data.mdb"
MAGIC, FORMAT = 0xBEEFC0DE, 1
BRANCH, LEAF, META = 1, 2, 8  # flags of a page
BIG = 1  # flag of a node: its value has pages of its own. There are others for keys of several values
PAGE_SIZES = [2**n for n in range(8, 17)]
HEAD = 16  # bytes of a page before its nodes, and of the first page of a large value before it
NO_PAGE = 2**64 - 1
DEEPEST = 32  # LMDB's own bound
LONGEST_VALUE = 2**31  # bytes, as long as a message may be
TREES = (40, 88)  # where the head of a page 0 or 1 describes the tree of free pages, and that of the records
_NODE = struct.Struct("<HHHH").unpack_from


class LmdbFile:
    """Records of the LMDB `path`, its folder or its file, in the order of the keys. CaffeError: it is damaged.

    `count` is their number. The file is read as it is now; pages that another process writes anew are noticed."""

    def __init__(self, path):
        self._name = os.path.join(path, FILE) if os.path.isdir(path) else path
        try:
            self._file = open_file(self._name)
        except OSError as e:
            raise CaffeError(f"{self._name}: {e.strerror}") from e
        weakref.finalize(self, self._file.close)
        self._reading = threading.Lock()
        self._page_size = 0
        metas = [self._meta(0)]
        self._page_size = struct.unpack_from("<I", metas[0], TREES[0])[0]
        if self._page_size not in PAGE_SIZES:
            self._fail(f"it says that its pages have {self._page_size} bytes")
        metas.append(self._meta(self._page_size))
        newest = max(metas, key=lambda head: struct.unpack_from("<Q", head, 144)[0])
        self._last_page = struct.unpack_from("<Q", newest, 136)[0]
        self._trees = [struct.unpack_from("<xxxxHHQQQQQ", newest, at) for at in TREES]
        self.count = self._trees[1][5]

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of every record."""
        ahead = _Ahead(self._read)
        for number, page, places in self._leaves(self._trees[1], ahead.read):
            last = len(page)
            for place in places:  # what a record costs is spent here: what is usual comes first, and without a call
                low, high, flags, length = _NODE(page, place)
                size, begin = low | high << 16, place + 8 + length
                if not flags and begin + size <= last:
                    yield page[place + 8 : begin], page[begin : begin + size]
                elif flags == BIG and begin + 8 <= last:
                    yield page[place + 8 : begin], ahead.read(self._place(page[begin : begin + 8], size), size)
                else:
                    key, *_ = self._record(page, place, number)
                    self._fail(f"its key {key!r} has several values, which Caffe's databases do not")

    def check(self):
        """CaffeError where a page that describes records or free pages is damaged. Values are not read."""
        for tree in self._trees:
            for number, page, places in self._leaves(tree, _Ahead(self._read).read):
                for place in places:
                    _, node, flags, size = self._record(page, place, number)
                    if flags & BIG and self._place(node, size) + size > self._size():
                        self._fail("it is cut off")

    def _meta(self, at):
        head = self._read(at, 152)
        magic, version = struct.unpack_from("<II", head, HEAD)
        if not self._page_size and (magic, version) != (MAGIC, FORMAT):
            self._fail("it is no LMDB" if magic != MAGIC else f"it is of format {version}, wanted {FORMAT}")
        if (magic, version) != (MAGIC, FORMAT) or not struct.unpack_from("<H", head, 10)[0] & META:
            self._fail("one of its first two pages is none")
        return head

    def _leaves(self, tree, read):
        """(number, bytes, places of its records) of the pages at the bottom of a tree; read(at, size) of the file."""
        _, depth, branches, leaves, _, entries, root = tree
        if root == NO_PAGE:
            if entries:
                self._fail(f"it says that it has {entries} records, and no page of them")
            return
        if depth > DEEPEST:
            self._fail(f"it says that its tree is {depth} pages deep")
        waiting, pages, found = [(root, 1)], 0, 0
        while waiting:
            number, level = waiting.pop()
            pages += 1
            if pages > min(branches + leaves, self._size() // self._page_size):
                self._fail(f"its tree has more pages than the {branches + leaves} that it tells of, or than there are")
            page, flags, places = self._page(number, read)
            if flags & (BRANCH | LEAF) != (LEAF if level == depth else BRANCH):
                self._fail(f"page {number} is of another kind than its place in the tree")
            if flags & BRANCH:
                below = [self._child(page, place) for place in places]
                waiting += [(child, level + 1) for child in reversed(below)]
                continue
            found += len(places)
            if found > entries:
                self._fail(f"it holds more records than the {entries} that it tells of")
            yield number, page, places
        if found != entries:
            self._fail(f"it holds {found} records, and says {entries}")

    def _page(self, number, read):
        """(bytes, flags, places of its nodes) of a page; every node begins in it."""
        if not 2 <= number <= self._last_page:
            self._fail(f"it points to page {number} of {self._last_page + 1}")
        page = read(number * self._page_size, self._page_size)
        itself, _, flags, end = struct.unpack_from("<QHHH", page)
        if itself != number or not HEAD <= end <= self._page_size or end % 2:
            self._fail(f"page {number} is damaged")
        places = struct.unpack_from(f"<{(end - HEAD) // 2}H", page, HEAD)
        if places and (min(places) < HEAD or max(places) + 8 > len(page)):
            self._fail(f"page {number} is damaged")
        return page, flags, places

    def _child(self, page, place):
        low, middle, high = struct.unpack_from("<HHH", page, place)
        return low | middle << 16 | high << 32

    def _record(self, page, place, number):
        """(key, value or number of its first page, flags, size of the value)"""
        low, high, flags, length = _NODE(page, place)
        size, begin = low | high << 16, place + 8 + length
        end = begin + (8 if flags & BIG else size)
        if end > len(page):
            self._fail(f"page {number} is damaged")
        return page[place + 8 : begin], page[begin:end], flags, size

    def _place(self, node, size):
        """Where a large value lies in the file."""
        number = int.from_bytes(node, "little")
        end = number * self._page_size + HEAD + size
        if not 2 <= number or end > (self._last_page + 1) * self._page_size or size > LONGEST_VALUE:
            self._fail(f"it points to {size} bytes from page {number} of {self._last_page + 1} on")
        return number * self._page_size + HEAD

    def _read(self, at, size, at_most=0):
        """`size` bytes of the file, or up to `at_most` where it has more."""
        found = b""
        try:
            if at + size <= self._size():  # else `read` would ask for memory that a lie demands
                with self._reading:
                    self._file.seek(at)
                    found = self._file.read(max(size, at_most))
        except OSError as e:
            raise CaffeError(f"{self._name}: {e.strerror}") from e
        if len(found) < size:
            self._fail("it is cut off" if at else "it is no LMDB")
        return found

    def _size(self):
        return os.fstat(self._file.fileno()).st_size

    def _fail(self, why):
        raise CaffeError(f"{self._name}: {why}; the file is damaged, or was written to meanwhile: make it anew")


class _Ahead:
    """read(at, size) of a file of which `read` reads a part: the more at a time, the longer its parts come in order."""

    LEAST, MOST = 2**14, 2**18  # bytes: larger parts are not worth a copy

    def __init__(self, read):
        self._from = read
        self._at, self._held, self._next = 0, b"", self.LEAST

    def read(self, at, size):
        begin, end = at - self._at, at - self._at + size
        if 0 <= begin and end <= len(self._held):
            return self._held[begin:end]
        if size > self.MOST // 4:
            return self._from(at, size)
        in_order = 0 <= begin <= len(self._held) + self.LEAST
        self._next = min(2 * self._next, self.MOST) if in_order else self.LEAST
        self._at, self._held = at, self._from(at, size, max(size, self._next))
        return self._held[:size]
