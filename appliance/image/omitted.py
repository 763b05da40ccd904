"""What an image does without, of Python's library and of the dependencies.

    OMITTED, WITHOUT, WITHOUT_LIBRARY   of the standard library
    WITHOUT_FILES, BUILDING, KEPT       of the dependencies

Names are of modules and of files below a folder of modules; one that ends with a dot is of a single
module, in whatever kind of file. A test imports every module of an image from that image alone, so
what is left must not ask for what is left out. Imports the standard library.
"""

from __future__ import annotations

from typing import Final

OMITTED: Final = frozenset((
    "_osx_support", "cgi", "configparser", "curses", "dbm", "distutils", "doctest",
    "ensurepip", "ftplib", "getopt", "idlelib", "imaplib", "lib2to3", "multiprocessing",
    "nntplib", "nturl2path", "pdb", "plistlib", "poplib", "pydoc", "setuptools", "smtplib",
    "socketserver", "sqlite3", "statistics", "telnetlib", "test", "tkinter", "turtle", "unittest",
    "venv", "webbrowser", "wsgiref", "xmlrpc",
))  # fmt: skip
"""Named by modules of the library for people at a terminal, for other systems, or for protocols
that go by sockets."""
WITHOUT: Final = frozenset((
    "_bz2", "_hashlib", "_lzma", "_pydecimal", "_ssl", "_uuid", "bz2", "lzma", "readline", "ssl",
))  # fmt: skip
"""Modules of the library that have a twin: what they do, cryptography's own OpenSSL or the
interpreter's own digests do as well, without another 5 MB of OpenSSL and its start; or that are
asked for in vain and done without: what packs as nobody packs a seed, and counts identifiers."""
WITHOUT_LIBRARY: Final = (
    "asyncio/proactor_events.", "asyncio/windows_", "concurrent/futures/process.", "ctypes/_aix.",
    "ctypes/macholib/", "ctypes/wintypes.", "email/_header_value_parser.", "email/contentmanager.",
    "email/headerregistry.", "email/mime/", "email/policy.", "http/server.",
    "importlib/resources/simple.", "importlib/simple.", "json/tool.", "logging/config.",
    "logging/handlers.", "xml/dom/", "xml/etree/ElementInclude.", "xml/etree/cElementTree.",
    "xml/sax/",
)  # fmt: skip
"""Of the library's packages: what other systems have, what sends mail, what reads XML as nobody
here does, a web server."""
WITHOUT_FILES: Final = (
    "cffi/", "pycparser/", "zstandard/_cffi.", "pydantic/v1/", "pydantic/mypy.", "dns/quic/",
    "certifi/cacert.pem", "OpenSSL/debug.", "acme/standalone.", "annotated_types/test_cases.",
    "charset_normalizer/cli/", "cryptography/hazmat/primitives/serialization/pkcs7.", "idna/cli.",
    "idna/codec.", "markdown_it/cli/", "markdown_it/port.yaml", "markdown_it/tree.",
    "pygments/cmdline.", "pygments/sphinxext.", "requests/help.", "urllib3/contrib/",
    "urllib3/util/ssltransport.", "prometheus_client/aiohttp/", "prometheus_client/bridge/",
    "prometheus_client/django/", "prometheus_client/twisted/", "prometheus_client/multiprocess.",
    "prometheus_client/openmetrics/parser.", "prometheus_client/parser.",
    *(f"mdit_py_plugins/{name}" for name in (
        "admon/", "amsmath/", "anchors/", "attrs/", "colon_fence.", "container/", "dollarmath/",
        "field_list/", "front_matter/", "gfm/", "gfm_autolink/", "myst_blocks/", "myst_role/",
        "section_ref/", "subscript/", "substitution.", "superscript/", "tasklists/", "texmath/",
        "wordcount/",
    )),
    *(f"dns/{name}" for name in (
        "_asyncbackend.", "_asyncio_backend.", "_ddr.", "_tls_util.", "_trio_backend.",
        "asyncbackend.", "asyncquery.", "asyncresolver.", "btree.", "btreezone.", "dnssec.",
        "dnssecalgs/", "e164.", "grange.", "nameserver.", "namedict.", "node.", "query.",
        "resolver.", "reversename.", "transaction.", "versioned.", "win32util.", "xfr.", "zone.",
        "zonefile.",
    )),
)  # fmt: skip
"""Of the dependencies: what compiles at build time, a backend for another interpreter, a library's
past, plug-ins of other programs, authorities' certificates that no connection of ours asks for,
programs of their own, and whole halves that we do ourselves: asking and zones, servers of metrics.
"""
BUILDING: Final = (
    "_yaml.", "_yaml/", "yaml/_yaml.", "yaml/cyaml.",
    "charset_normalizer/md.", "charset_normalizer/cd.", "_brotli.", "brotli.", "zstandard/",
    "pygments/styles/", "pygments/lexers/", "pygments/formatters/",
)  # fmt: skip
"""Of the dependencies: what is wanted when an image is built, but not in it (`KEPT` is). Extension
modules that are a quicker way of what their packages do without them, codings of pages beside gzip,
and a colourist's languages: of all pages, only a seed's are made in a machine."""
KEPT: Final = frozenset((
    *(f"pygments/lexers/{name}" for name in (
        "__init__", "_mapping", "special", "c_cpp", "configs", "css", "_css_builtins",
        "data", "diff", "go", "haskell", "html", "javascript", "jvm", "make", "ml",
        "perl", "python", "ruby", "rust", "shell", "sql", "_sql_builtins", "_mysql_builtins",
        "_postgres_builtins", "_googlesql_builtins", "_tsql_builtins", "webmisc",
    )),
    *(f"pygments/styles/{name}" for name in ("__init__", "_mapping", "default")),
    *(f"pygments/formatters/{name}" for name in ("__init__", "_mapping", "html")),
))  # fmt: skip
"""The commonest languages; a block in another one is left plain."""
ENCODINGS: Final = frozenset((
    "__init__", "aliases", "ascii", "idna", "latin_1", "punycode", "unicode_escape", "utf_8",
    "utf_8_sig", "utf_16", "utf_32",
))  # fmt: skip
"""Of a hundred encodings, those that the web and the domain name system use."""
