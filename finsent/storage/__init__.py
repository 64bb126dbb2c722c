"""Storage of artifacts: local directories and object stores (`s3://`, `gs://`, `az://`).

`Location` is a place below `storage.root` or `registry.root`: a local path or a URI. A location
offers two views of what is stored there.

`location.store` is a `Store` of small records and files by key (`"aliases/champion.json"`):

* `read(key)` returns bytes and their ETag, or None. `read_range(key, start, length)` returns a part
  of an object. `list_objects(prefix)` returns every object below a prefix,
  `list_folders(prefix)` the names directly below it.
* `put(key, data)` replaces. `put_if_absent(key, data)` and `put_if_match(key, data, etag)` return
  the new ETag, or None when another writer was first. A write whose response was lost is recognized
  by its bytes, so a record for which writers compete needs content that no other writer has.
* `upload(path, key)` and `download(key, path, sha256)` transfer files of any size.
* `delete(key)`, `delete_prefix(prefix)`.

`location.trees` is a `Trees` of immutable directories by key (`"versions/a1b2c3d4e5f6"`):

* `publish(key)` is a context manager. Its block writes files to a local staging directory. When the
  block succeeds, the directory becomes visible complete: by a rename on a local disk, by ONE
  conditional PUT of the marker `KEY/tree.json` on an object store, after all files are uploaded.
* `names(prefix)`, `is_published(key)`, `read_file(key, path)`, `delete(key)`.
* `fetch(key)` returns a local directory: the tree itself on a local disk, or a copy in the cache,
  verified by SHA-256. Directories in use are never evicted.

`tree.json` (`TreeMarker`) lists path, size and SHA-256 of each file. The files of a tree are in
`KEY/ATTEMPT/`, a prefix that no other writer uses, so competing or dead writers damage no tree.

`hold_lease` (`finsent.storage.lease`) lets one process at a time own a name in a store.

Credentials come from the environment that the store's own tools read. Errors are `StorageError`:
one line that names the location and what to set. Failed requests are repeated with jitter until
`storage.retry_seconds` have passed.
"""

from __future__ import annotations

from finsent.storage.config import StorageConfig
from finsent.storage.location import Location, as_location
from finsent.storage.store import ObjectInfo, StorageError, Store, StoredObject
from finsent.storage.trees import TreeMarker, Trees

__all__ = [
    "Location",
    "ObjectInfo",
    "StorageConfig",
    "StorageError",
    "Store",
    "StoredObject",
    "TreeMarker",
    "Trees",
    "as_location",
]
