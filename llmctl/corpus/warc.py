"""Web archives: the main text of every page of a WARC file, as a row."""

import gzip
from collections.abc import Callable, Iterator
from typing import Any

from llmctl.corpus.files import File
from llmctl.errors import require_package

SUFFIXES = (".warc", ".warc.gz")
HTML = ("text/html", "application/xhtml+xml")


def read_warc(file: File, fault: Callable[[str, str], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of the HTML responses of a WARC file; a row has `text`, `id`, `url` and `date`. Pages without text are rows
    with an empty one.

    Raises:
        UserError: the packages that read them are not installed, or `fault` says so.
    """
    require_package("fastwarc", f"{file.name}: a WARC file")
    require_package("resiliparse", f"{file.name}: a WARC file")
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    number = 0
    try:
        # Opened here, since FastWARC takes a truncated file for one that ends.
        with file.open() as raw, gzip.open(raw, "rb") if file.name.endswith(".gz") else raw as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True, auto_decode="all"):
                number += 1
                if (record.http_content_type or "").lower() not in HTML:
                    continue
                body = record.reader.read()
                page = bytes_to_str(body, record.http_charset or detect_encoding(body) or "utf-8")
                text = extract_plain_text(page, main_content=True, alt_texts=False)
                address = str(record.headers.get("WARC-Target-URI") or "").strip("<>")
                day = record.record_date.date().isoformat() if record.record_date else ""
                row = {"text": text, "id": str(record.record_id).strip("<>"), "url": address, "date": day}
                yield f"{file.name}:{number}", row
    except (OSError, EOFError, ValueError) as error:
        fault(f"{file.name}:{number + 1}", f"broken or truncated: {error}")
