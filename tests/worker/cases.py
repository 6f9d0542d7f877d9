"""Raw requests, good and bad, on which two servers may disagree: what request smuggling is made of.

Each has a name, which the tests report. Most are one request; those under "pipelined" are more.
"""

from __future__ import annotations

from tests.worker.wire import chunked, request

NUL_TO_DEL = [*range(0x20), 0x7F]
"""The control characters; the tab is one."""


def _post(*fields: str, body: bytes = b"", target: str = "/", version: str = "1.1") -> bytes:
    """Make a POST whose framing is only what ``fields`` say."""
    head = request(target, *fields, method="POST", version=version)
    return head + body


# Tables of one value a line would be read by nobody.
# fmt: off


def _lengths() -> dict[str, bytes]:
    cases = {
        f"content-length {value!r}": _post(f"Content-Length: {value}", body=b"abcde")
        for value in (
            "5", "05", "0005", "+5", "-5", "-0", "5 ", "5\t", " 5", "5 5", "5,5", "5, 5", "5,6",
            "5;", "5.0", "5e0", "0x5", "0b101", "5_0", "1_0", "five", "", " ", "5\x0b", "'5'",
            *("\xb25", "\xb2", "\xbc", "5\xa0", "\xa05", "\u0665".encode().decode("latin-1")),
            "99999999999999999999", "18446744073709551621", "4294967301", "9" * 400,
            *("9223372036854775813", "0" * 300 + "5", "2147483653", "-9223372036854775808"),
        )
    }
    return cases | {
        "content-length twice, the same": _post(
            "Content-Length: 5", "Content-Length: 5", body=b"abcde"
        ),
        "content-length twice, different": _post(
            "Content-Length: 5", "Content-Length: 0", body=b"abcde"
        ),
        "content-length three times": _post(*["Content-Length: 5"] * 3, body=b"abcde"),
        "content-length twice, one empty": _post(
            "Content-Length: 5", "Content-Length:", body=b"abcde"
        ),
        "content-length without a space": _post("Content-Length:5", body=b"abcde"),
        "content-length in capitals": _post("CONTENT-LENGTH: 5", body=b"abcde"),
        "content_length for content-length": _post("Content_Length: 5", body=b"abcde"),
        "content-length and content_length": _post(
            "Content-Length: 5", "Content_Length: 0", body=b"abcde"
        ),
        "content-length of a GET": request(body=b"abcde"),
        "content-length of a HEAD": request(method="HEAD", body=b"abcde"),
        "content-length of a DELETE": request(method="DELETE", body=b"abcde"),
        "content-length 0 of a GET": request(body=b""),
        "a body shorter than its length": _post("Content-Length: 9", body=b"abcde"),
        "no length and a body": _post(body=b"abcde"),
        "a body of all bytes": _post("Content-Length: 256", body=bytes(range(256))),
        "a body of 100,000 bytes": _post("Content-Length: 100000", body=b"0123456789" * 10000),
        "content-length and transfer-encoding": _post(
            "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"
        ),
        "transfer-encoding and content-length": _post(
            "Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n"
        ),
        "transfer-encoding and content-length 0": _post(
            "Transfer-Encoding: chunked", "Content-Length: 0", body=chunked(b"abcde")
        ),
        "transfer-encoding and content-length of HTTP/1.0": _post(
            "Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n", version="1.0"
        ),
        "transfer-encoding identity and content-length": _post(
            "Transfer-Encoding: identity", "Content-Length: 5", body=b"abcde"
        ),
        "an unknown transfer-encoding and content-length": _post(
            "Transfer-Encoding: xchunked", "Content-Length: 5", body=b"abcde"
        ),
    }


def _codings() -> dict[str, bytes]:
    body = chunked(b"abcde")
    cases = {
        f"transfer-encoding {value!r}": _post(f"Transfer-Encoding: {value}", body=body)
        for value in (
            "chunked", "CHUNKED", "Chunked", " chunked", "chunked ", "\tchunked", "chunked\t",
            "chunked,", ",chunked", "chunked, ", "chunked, chunked", "chunked,chunked", "", " ",
            "identity", "identity, chunked", "chunked, identity", "gzip", "gzip, chunked",
            "chunked, gzip", "deflate", "compress, chunked", "br, chunked", "xchunked", "xchunked,",
            "chunkedx", "chunke", "chunked;q=1", "chunked; a=b", '"chunked"', "'chunked'",
            "c hunked", "\x0bchunked", "chunked\x0b", "\x0cchunked", "chunked\x00", "\xa0chunked",
            "chunked\xa0",
            *(
                "trailers", "x", "chunked x", "chunked\xff",
                "\u212aunked".encode().decode("latin-1"),
            ),
        )
    }
    for version in ("1.0", "1.1"):
        cases |= {
            f"two transfer-encodings, {first} and {second}, of HTTP/{version}": _post(
                f"Transfer-Encoding: {first}",
                f"Transfer-Encoding: {second}",
                body=body,
                version=version,
            )
            for first, second in (
                ("chunked", "chunked"),
                ("chunked", "identity"),
                ("identity", "chunked"),
                ("gzip", "chunked"),
                ("chunked", "gzip"),
                ("xchunked", "chunked"),
                ("chunked", ""),
            )
        }
    return cases | {
        "transfer-encoding chunked of HTTP/1.0": _post(
            "Transfer-Encoding: chunked", body=body, version="1.0"
        ),
        "transfer-encoding gzip of HTTP/1.0": _post(
            "Transfer-Encoding: gzip", body=body, version="1.0"
        ),
        "transfer_encoding for transfer-encoding": _post("Transfer_Encoding: chunked", body=body),
        "a space before the colon of transfer-encoding": _post(
            "Transfer-Encoding : chunked", body=body
        ),
        "a space before transfer-encoding": _post(" Transfer-Encoding: chunked", body=body),
        "transfer-encoding folded": _post("Transfer-Encoding:\r\n chunked", body=body),
        "a chunked GET": request("/", "Transfer-Encoding: chunked") + body,
        "a chunked HEAD": request("/", "Transfer-Encoding: chunked", method="HEAD") + body,
        "te: trailers": _post("TE: trailers", "Transfer-Encoding: chunked", body=body),
        "a trailer that is announced": _post(
            "Trailer: X-Sum", "Transfer-Encoding: chunked", body=body
        ),
    }


def _chunks() -> dict[str, bytes]:
    bodies = {
        f"a chunk of size {size!r}": size + b"\r\nabcde\r\n0\r\n\r\n"
        for size in (
            b"5", b"05", b"0000000000000005", b"00000000000000005", b"0" * 100 + b"5", b"5 ", b" 5",
            b"5\t", b"\t5", b"0x5", b"0X5", b"+5", b"-5", b"-1", b"", b"5h", b"g", b"5_", b"0_5",
            b"5.", b"5,", b"\xb2", b"5\x00", b"\x005", b"5\x0b", b"5\x0c", b"'5'", b"5 5",
            b"10000000000000005", b"100000005", b"ffffffffffffffff", b"8000000000000005",
            b"7fffffffffffffff", b"FFFFFFFFFFFFFFFFF", b"f" * 100, b"0" * 9000 + b"5",
        )
    }
    bodies |= {
        f"a chunk with the extension {extension[:40]!r} of {len(extension)} bytes": b"5"
        + extension
        + b"\r\nabcde\r\n0\r\n\r\n"
        for extension in (
            b";a", b";a=b", b'; a="b c"', b";a=b;c=d", b" ;a", b"\t;a", b"; a = b", b" ; a ; b ",
            b";", b";;", b";=", b";a=", b";=b", b";a b", b';a="', b';a="b', b';a="b\\""', b';a="\\',
            b";a\x00", b";a\rb", b";a\nb", b";a\x7f", b";\xff", b';a="\xff"', b';a="\x01"',
            b";a=(b", b";a\r", b"\r", b";a=b,c", b";" + b"a" * 1000, b";" + b"a" * 20000,
            b";a=b" * 3000, b'; a="\r\n0"', b";a=\xe2\x80\xa9", b';a="b"c', b" a", b"a=b", b";a[",
            b";a@b", b";a:b",
        )
    }
    bodies |= {
        f"a last chunk of {last!r}": b"5\r\nabcde\r\n" + last
        for last in (
            b"0\r\n\r\n", b"00\r\n\r\n", b"0" * 20 + b"\r\n\r\n", b"0 \r\n\r\n", b"0;a\r\n\r\n",
            b"0;a=\r\n\r\n", b"0\n\n", b"0\n\r\n", b"0\r\n\n", b"0\r\r", b"0\r\n", b"0\r", b"0",
            b"", b"\r\n\r\n", b"-0\r\n\r\n", b"+0\r\n\r\n", b"0x0\r\n\r\n", b"0\r\n\r", b"0\r\nX",
            b"0\r\nX\r\n\r\n", b"0\r\n\r\r\n", b"0\r\n\n\r\n", b"0\r\n\r\n\r\n", b" 0\r\n\r\n",
        )
    }
    bodies |= {
        "chunks ended by LF alone": b"5\nabcde\n0\n\n",
        "a chunk whose size ends with LF alone": b"5\nabcde\r\n0\r\n\r\n",
        "a chunk whose data ends with LF alone": b"5\r\nabcde\n0\r\n\r\n",
        "a chunk whose size ends with CR alone": b"5\rabcde\r\n0\r\n\r\n",
        "a chunk whose data ends with CR alone": b"5\r\nabcde\r0\r\n\r\n",
        "a chunk whose size ends with CR and another": b"5\rXabcde\r\n0\r\n\r\n",
        "a chunk whose data ends with CR and another": b"5\r\nabcde\rX0\r\n\r\n",
        "a chunk whose data ends with two others": b"5\r\nabcdeXX0\r\n\r\n",
        "a chunk longer than its size": b"4\r\nabcde\r\n0\r\n\r\n",
        "a chunk shorter than its size": b"6\r\nabcde\r\n0\r\n\r\n",
        "a chunk much shorter than its size": b"ff\r\nabcde\r\n0\r\n\r\n",
        "an empty line between chunks": b"5\r\nabcde\r\n\r\n0\r\n\r\n",
        "an empty line before the chunks": b"\r\n5\r\nabcde\r\n0\r\n\r\n",
        "no chunk but the last": b"0\r\n\r\n",
        "many chunks": b"".join(b"1\r\n%c\r\n" % (97 + n % 26) for n in range(500)) + b"0\r\n\r\n",
        "a chunk with CRLF in its data": chunked(b"a\r\n0\r\n\r\nb"),
        "sizes in both cases": b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
        "a chunked body that is missing": b"",
        "a chunked body that is a plain one": b"abcde",
    }
    bodies |= {
        f"the trailer {trailer[:40]!r} of {len(trailer)} bytes": chunked(b"abcde", trailers=trailer)
        for trailer in (
            b"X-Sum: 1\r\n", b"X-Sum:\r\n", b"A: 1\r\nB: 2\r\n", b"x-sum: \xe9\r\n", b"A:b\r\n",
            b"X-Sum\r\n", b": 1\r\n", b"X-Sum : 1\r\n", b"X Sum: 1\r\n", b"X_Sum: 1\r\n",
            b" X-Sum: 1\r\n", b"A: 1\r\n B: 2\r\n", b"X-Sum: 1\n", b"X-Sum: \x001\r\n",
            b"X-Sum: 1\rB: 2\r\n", b"A: 1\nB: 2\r\n", b"X-Sum: \x7f\r\n", b"X\x00: 1\r\n",
            b"Host: evil\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
            b"content-length: 5\r\n", b"Trailer: a\r\n", b"TE: a\r\n", b"Authorization: a\r\n",
            b"Content-Type: a/b\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
            b"Expect: tea\r\n", b"X-Forwarded-Proto: https\r\n", b"Cookie: a\r\n",
            b"Upgrade: websocket\r\n", b"A: b\r\n" * 90, b"A: b\r\n" * 110,
            b"X: " + b"a" * 8000 + b"\r\n", b"X: " + b"a" * 9000 + b"\r\n", b"\xffX: 1\r\n",
            b"Content-Type: a/b\r\nContent-Type: a/b\r\n",
        )
    }
    return {name: _post("Transfer-Encoding: chunked", body=body) for name, body in bodies.items()}


def _fields() -> dict[str, bytes]:
    lines = {
        f"the field line {line[:60]!r} of {len(line)} bytes": line
        for line in (
            b"X: 1", b"X:1", b"X:", b"X: ", b"X:\t1\t", b"X:  1  ", b"x: 1", b"X-1: 1", b"1: 1",
            b"X", b":", b": 1", b"X : 1", b"X\t: 1", b" X: 1", b"\tX: 1", b"X Y: 1", b"", b" ",
            b"\t", b"X_Y: 1", b"_: 1", b"X__Y: 1", b"HTTP_X: 1", b"X-Y_Z: 1", b"X: a_b",
            b"Remote_Addr: x", b"X\xe9: 1", b"\xdf: 1", b"\xffX: 1", b"X: \xe9", b"X: \xff\xfe",
            b"X: \xc3\xa9", b"X!#$%&'*+-.^`|~: 1", b"(X): 1", b"X,Y: 1", b"X/Y: 1", b"X;Y: 1",
            b"X=Y: 1", b'"X": 1', b"X[1]: 1", b"X@Y: 1", b"{X}: 1", b"X?: 1", b"X\\: 1", b"<X>: 1",
            b"X:Y: 1", b"X:: 1", b"X: a\r\n b", b"X: a\r\n\tb", b"X:\r\n b", b"X: a\r\n ",
            b"X: a\r\n  Y: b", b"X:\r\n\r\n b", b"X: a\nY: b", b"X: a\n", b"\nX: a", b"X: a\n b",
            b"X: a\rY: b", b"X: a\r", b"\rX: a", b"X: a\r\r\nY: b", b"X: a\n\r\nY: b",
            b"X: a\n\nY: b", b"X\r\n: a", b"X\n: a", b"X\r: a", b"X: \r", b"X:\ra", b"X: a\x0b",
            b"X: a\x0c", b"X: a\x85", b"X: a\xa0", b"X: \x1ca", b"X: 1\r\nX: 2", b"X: 1\r\nx: 2",
            b"X: 1\r\nX: 1", b"X: 1, 2\r\nX: 3", b"X:\r\nX:", b"X-Y: 1\r\nX_Y: 2",
            b"X_Y: 1\r\nX-Y: 2", b"Cookie: a=1\r\nCookie: b=2", b"Host: two.example",
            b"host: lantern.example", b"Host: a, b", b"Host:", b"Host", b"Content-Type: a/b",
            b"Content-Type: a/b\r\nContent-Type: c/d", b"Content-Type:",
            b"Content-Type: a/b\r\ncontent-type: a/b", b"Content_Type: a/b", b"Content-Type: \xe9",
            b"Content-Length: 0", b"Content-Length: 0\r\nContent-Length: 0", b"Content-Length:",
            b"Authorization: Basic YTpi", b"Proxy: http://evil", b"Script-Name: /x",
            b"Script_Name: /", b"Path-Info: /x", b"Path_Info: /x", b"Remote-User: root",
            b"Remote_User: root", b"X-Forwarded-For: 1.2.3.4",
            b"X-Forwarded-For: 1\r\nX_Forwarded_For: 2", b"X-Forwarded-Proto: https",
            b"X-Forwarded-Proto: http", b"X-Forwarded-Proto: HTTPS", b"X-Forwarded-Ssl: on",
            b"X-Forwarded-Ssl: off", b"X-Forwarded-Protocol: ssl",
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off", b"X-Forwarded-Proto: https, http",
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Proto: https", b"Forwarded: for=1.2.3.4",
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http", b"X-Forwarded_Proto: https",
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: on", b"X_Forwarded_Proto: https",
            b"Upgrade: websocket\r\nConnection: Upgrade", b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABk",
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
            b"Keep-Alive: 300", b"Proxy-Connection: keep-alive", b"TE: trailers",
            b"Range: bytes=0-",
            *(
                b"X: " + b"a" * n
                for n in (8000, 8182, 8183, 8184, 8185, 8186, 8187, 8188, 8189, 8190)
            ),
            *(b"X: " + b"a" * n for n in (8191, 8192, 9000, 20000, 70000)),
            *(b"a" * n + b": 1" for n in (8000, 8185, 8186, 8187, 8188, 9000)),
            *(b"\r\n".join([b"X: 1"] * n) for n in (50, 98, 99, 100, 101, 200, 5000)),
            *(b"X_%d: 1\r\n" % n * 99 + b"X: 1" for n in (1, 2)),
        )
    }
    cases = {
        name: b"GET / HTTP/1.1\r\nHost: lantern.example\r\n" + line + b"\r\n\r\n"
        for name, line in lines.items()
    }
    for byte in NUL_TO_DEL:
        cases[f"the control character {byte:#04x} in a value"] = _get(b"X: a%cb" % byte)
        cases[f"the control character {byte:#04x} at the end of a value"] = _get(b"X: a%c" % byte)
        cases[f"the control character {byte:#04x} at the start of a value"] = _get(b"X:%ca" % byte)
        cases[f"the control character {byte:#04x} in a name"] = _get(b"X%cY: a" % byte)
        cases[f"the control character {byte:#04x} at the end of a name"] = _get(b"X%c: a" % byte)
        cases[f"the control character {byte:#04x} before a name"] = _get(b"%cX: a" % byte)
        cases[f"the control character {byte:#04x} in the target"] = (
            b"GET /a%cb HTTP/1.1\r\nHost: lantern.example\r\n\r\n" % byte
        )
        cases[f"the control character {byte:#04x} in the method"] = (
            b"GE%cT / HTTP/1.1\r\nHost: lantern.example\r\n\r\n" % byte
        )
        cases[f"the control character {byte:#04x} in the version"] = (
            b"GET / HTTP/1.1%c\r\nHost: lantern.example\r\n\r\n" % byte
        )
        cases[f"the control character {byte:#04x} before the request"] = (
            b"%cGET / HTTP/1.1\r\nHost: lantern.example\r\n\r\n" % byte
        )
    cases |= {
        "no host": b"GET / HTTP/1.1\r\n\r\n",
        "no host of HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
        "an empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "two hosts, the same": _get(b"Host: lantern.example"),
        "two hosts of HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        "a folded first field": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "a field before a space": b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
        "fields ended by LF alone": b"GET / HTTP/1.1\nHost: a\n\n",
        "a request line ended by LF alone": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        "a head ended by LF LF": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        "a head ended by CRLF LF": b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        "a head ended by LF CR LF": b"GET / HTTP/1.1\r\nHost: a\n\r\nX: 1\r\n\r\n",
        "a head ended by CR CR": b"GET / HTTP/1.1\rHost: a\r\r",
        "a head ended by CRLF CR": b"GET / HTTP/1.1\r\nHost: a\r\n\r",
        "a head ended by CRLF CR and another": b"GET / HTTP/1.1\r\nHost: a\r\n\rX",
        "a head that is cut off": b"GET / HTTP/1.1\r\nHost: a\r\n",
        "a field that is cut off": b"GET / HTTP/1.1\r\nHost: a\r\nX",
    }
    return cases


def _get(line: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: lantern.example\r\n" + line + b"\r\n\r\n"


def _request_lines() -> dict[str, bytes]:
    lines = [
        *(
            b"%s / HTTP/1.1" % method
            for method in (
                b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"PROPFIND",
                b"MKCOL", b"CONNECT", b"SEARCH", b"QUERY", b"BREW", b"PURGE", b"M-SEARCH", b"LINK",
                b"ACL", b"PRI", b"get", b"Get", b"gET", b"G", b"GE", b"GETT", b"GET1", b"G-T",
                b"G_T", b"G!T", b"G#T", b"G(T", b"G,T", b"G/T", b"G:T", b"G\xe9T", b"A" * 20,
                b"A" * 21, b"A" * 5000, b'"GET"', b"FOO", b"SOURCE", b"DESCRIBE", b"ANNOUNCE",
                b"SETUP", b"PLAY", b"NOTIFY", b"SUBSCRIBE",
            )
        ),
        *(
            b"GET %s HTTP/1.1" % target
            for target in (
                b"/", b"//", b"//a", b"///a", b"//evil.example/a", b"/a//b", b"/./a", b"/../a",
                b"/a/../b", b"*", b"a", b"a/b", b"?", b"?a", b"#", b"/#", b"/#a", b"/a#b?c",
                b"/a?b#c", b"/?a?b", b"/?", b"http://lantern.example/", b"http://lantern.example",
                b"http://other.example/a?b", b"HTTP://lantern.example/", b"https://a/b",
                b"ftp://a/b", b"http:///a", b"http://", b"://", b"http://a:80/b", b"http://a:b/c",
                b"http://[::1]/a", b"http://[::1/a", b"http://u:p@a/b", b"http:/a", b"http:a",
                b"http://a\\b/", b"lantern.example:80", b"lantern.example", b":80", b"/http://a/b",
                b"a://b", b"1://b", b"/a:b", b"/a;b", b"/a=b", b"/a@b", b"/a,b", b"/a|b", b"/%41",
                b"/%2f", b"/%2F..%2f", b"/%", b"/%4", b"/%zz", b"/%00", b"/%0d%0a", b"/%c3%a9",
                b"/%ff", b"/\xc3\xa9", b"/\xff", b"/\xe9", b"/a?\xe9", b"/a\\b", b"\\a", b"/<a>",
                b'/"a"', b"/{a}", b"/[a]", b"/a^b", b"/`a`", b"/a b", b"/a  b", b"/a\tb", b"",
                b" /", b"/ ", b"\t/", b"/?%41", b"/?a=%00", b"/?a=b&a=c", b"/?\xff", b"/?a+b",
                b"/a?b/../c", b"/;a", b"/~a", b"/+",
                *(
                    b"/" + b"a" * n
                    for n in (1000, 4000, 8000, 8170, 8175, 8176, 8177, 8178, 8180, 8200, 20000)
                ),
                b"/[", b"//[", b"//[a]/", b"http://[a]/", b"//a]/b", b"/]", b"http://\xe9/",
                b"//[::1]/a",
            )
        ),
        *(
            b"GET / %s" % version
            for version in (
                b"HTTP/1.0", b"HTTP/1.1", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/0.9", b"HTTP/0.0",
                b"HTTP/2.0", b"HTTP/2", b"HTTP/3.0", b"HTTP/1", b"HTTP/1.", b"HTTP/.1", b"HTTP/11",
                b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1.1x", b"xHTTP/1.1", b"http/1.1", b"Http/1.1",
                b"HTTPS/1.1", b"HTP/1.1", b"HTTP/1.1 ", b" HTTP/1.1", b"HTTP/1.1 x", b"HTTP /1.1",
                b"HTTP/ 1.1", b"HTTP/1 .1", b"HTTP/1,1", b"HTTP/-1.1", b"HTTP/+1.1", b"HTTP/1.-1",
                b"HTTP/9.9", b"", b"HTTP", b"HTTP/", b"HTTP/1.\xb2", b"HTTP/1.1\t", b"\tHTTP/1.1",
                b"ICE/1.0", b"RTSP/1.0", b"HTTP/1.1;a", b"HTTP\\1.1", b"HTTP/1.1\r",
            )
        ),
        b"GET /", b"GET", b"GET ", b"", b" ", b"/", b"GET\t/\tHTTP/1.1", b"GET /\tHTTP/1.1",
        b"GET\t/ HTTP/1.1", b" GET / HTTP/1.1", b"\tGET / HTTP/1.1", b"GET / HTTP/1.1 HTTP/1.1",
        b"GET / a HTTP/1.1", b"HTTP/1.1 200 OK", b"HTTP/1.1 GET /", b"GET/ HTTP/1.1",
        b"GET /HTTP/1.1", b"CONNECT lantern.example:80 HTTP/1.1",
        b"CONNECT lantern.example HTTP/1.1", b"CONNECT http://a/ HTTP/1.1", b"CONNECT * HTTP/1.1",
        b"CONNECT [::1]:80 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"OPTIONS *a HTTP/1.1",
        b"OPTIONS /* HTTP/1.1", b"POST * HTTP/1.1", b"PRI * HTTP/2.0", b"OPTIONS http://a HTTP/1.1",
        b"HEAD / HTTP/1.1", b"HEAD / HTTP/1.0", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2",
        b"\x16\x03\x01\x02\x00\x01\x00\x01", b"\xff\xfeGET / HTTP/1.1",
        b"\xef\xbb\xbfGET / HTTP/1.1",
    ]
    cases = {}
    for line in lines:
        name = f"the request line {line[:60]!r} of {len(line)} bytes"
        cases[name] = line + b"\r\nHost: lantern.example\r\n\r\n"
    plain = request()
    return (
        cases
        | {
            f"{prefix!r} before the request": prefix + plain
            for prefix in (
                b"\r\n", b"\r\n\r\n", b"\r\n" * 3, b"\n", b"\n\n", b"\r", b"\r\r\n", b"\n\r\n",
                b"\r\n\n", b" \r\n", b"\r\n ", b"\x00", b"\r\n\r", b" ", b"\t", b"\r\n" * 5000,
                b"\n" * 100, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"0\r\n\r\n", b"X: 1\r\n",
            )
        }
        | {
            "nothing": b"",
            "one byte": b"G",
            "a request line alone": b"GET / HTTP/1.1\r\n",
            "a request line without its end": b"GET / HTTP/1.1",
            "HTTP/0.9": b"GET /\r\n",
            "a request line without an end that is too long": b"GET /" + b"a" * 70000,
            "a field without an end that is too long": b"GET / HTTP/1.1\r\nX: " + b"a" * 70000,
            "a head of a megabyte": b"GET / HTTP/1.1\r\n"
            + b"X: %s\r\n" % (b"a" * 8000) * 125
            + b"\r\n",
            "random bytes": bytes((n * 73 + 41) % 256 for n in range(2000)),
        }
    )


def _expectations() -> dict[str, bytes]:
    cases = {}
    for version in ("1.0", "1.1"):
        for value in (
            "100-continue", "100-Continue", "100-CONTINUE", " 100-continue ", "100-continue, a", "",
            "100", "continue", "101-upgrade", "tea", "100-continue;a", "100-continue,",
        ):
            name = f"expect {value!r} of HTTP/{version}"
            cases[name] = _post(
                f"Expect: {value}", "Content-Length: 2", body=b"ab", version=version
            )
            cases[name + " without a body"] = request("/", f"Expect: {value}", version=version)
    return cases | {
        "expect twice": _post(*["Expect: 100-continue"] * 2, "Content-Length: 2", body=b"ab"),
        "expect of a chunked body": _post(
            "Expect: 100-continue", "Transfer-Encoding: chunked", body=chunked(b"ab")
        ),
        "expect and something else": _post(
            "Expect: 100-continue", "Expect: tea", "Content-Length: 2", body=b"ab"
        ),
    }


def _persistence() -> dict[str, bytes]:
    cases: dict[str, bytes] = {}
    for version in ("1.0", "1.1"):
        cases |= {
            f"connection {value!r} of HTTP/{version}": request(
                "/", f"Connection: {value}", version=version
            )
            for value in (
                "close", "Close", "CLOSE", "keep-alive", "Keep-Alive", "KEEP-ALIVE", "", "x",
                " close ", "close, keep-alive", "keep-alive, close", "close,", ",close", "x, close",
                "close;a", "keep-alive, Upgrade", "Upgrade", "TE, close", "close\t", "closed",
                "keepalive",
            )
        }
        for first, second in (
            ("close", "keep-alive"),
            ("keep-alive", "close"),
            ("x", "close"),
            ("x", "keep-alive"),
        ):
            cases[f"connection {first!r} and {second!r} of HTTP/{version}"] = request(
                "/", f"Connection: {first}", f"Connection: {second}", version=version
            )
    return cases


def _pipelined() -> dict[str, bytes]:
    get, post = request("/a"), request("/b", method="POST", body=b"abcde")
    stream = request("/c", "Transfer-Encoding: chunked", method="POST") + chunked(b"abc", b"de")
    head, old = request("/d", method="HEAD"), request("/e", version="1.0")
    smuggled = request("/smuggled")
    return {
        "pipelined: GET GET": get * 2,
        "pipelined: many of each kind": (get + post + stream + head) * 10,
        "pipelined: POST GET": post + get,
        "pipelined: chunked GET": stream + get,
        "pipelined: HEAD POST": head + post,
        "pipelined: GET, an empty line, GET": get + b"\r\n" + get,
        "pipelined: GET, two empty lines, GET": get + b"\r\n\r\n" + get,
        "pipelined: POST, CRLF, GET": post + b"\r\n" + get,
        "pipelined: POST, LF, GET": post + b"\n" + get,
        "pipelined: POST, a space, GET": post + b" " + get,
        "pipelined: chunked, CRLF, GET": stream + b"\r\n" + get,
        "pipelined: HTTP/1.0 GET": old + get,
        "pipelined: GET, HTTP/1.0, GET": get + old + get,
        "pipelined: kept HTTP/1.0 GET": request("/e", "Connection: keep-alive", version="1.0")
        + get,
        "pipelined: close GET": request("/f", "Connection: close") + get,
        "pipelined: GET, a bad one, GET": get + b"BAD\r\n\r\n" + get,
        "pipelined: GET, one that is cut off": get + b"GET / HT",
        "pipelined: CONNECT GET": request("lantern.example:80", method="CONNECT") + get,
        "pipelined: upgrade GET": request("/", "Connection: Upgrade", "Upgrade: websocket") + get,
        "pipelined: upgrade with a body, GET": request(
            "/", "Connection: Upgrade", "Upgrade: websocket", method="POST", body=b"abcde"
        )
        + get,
        "smuggled: CL.TE": _post(
            f"Content-Length: {5 + len(smuggled)}",
            "Transfer-Encoding: chunked",
            body=b"0\r\n\r\n" + smuggled,
        ),
        "smuggled: TE.CL": _post(
            "Transfer-Encoding: chunked", "Content-Length: 3", body=b"0\r\n\r\n" + smuggled
        ),
        "smuggled: CL.CL": _post(
            "Content-Length: 0", f"Content-Length: {len(smuggled)}", body=smuggled
        ),
        "smuggled: a body of a GET": request("/", f"Content-Length: {len(smuggled)}") + smuggled,
        "smuggled: a longer body of a GET": request("/", "Content-Length: 5") + smuggled,
        "smuggled: TE with a tab": _post(
            "Transfer-Encoding:\tchunked", "Content-Length: 5", body=b"0\r\n\r\n" + smuggled
        ),
        "smuggled: TE hidden by a vertical tab": _post(
            "Transfer-Encoding: \x0bchunked",
            f"Content-Length: {len(smuggled)}",
            body=smuggled,
        ),
        "smuggled: TE hidden by a space": _post(
            "Transfer-Encoding : chunked", f"Content-Length: {len(smuggled)}", body=smuggled
        ),
        "smuggled: TE hidden by LF": _post(
            "X: a\nTransfer-Encoding: chunked", f"Content-Length: {len(smuggled)}", body=smuggled
        ),
        "smuggled: TE hidden by CR": _post(
            "X: a\rTransfer-Encoding: chunked", f"Content-Length: {len(smuggled)}", body=smuggled
        ),
        "smuggled: behind LF in a chunk's extension": _post(
            "Transfer-Encoding: chunked",
            body=b"2;\nxx\r\n4c\r\n0\r\n\r\n" + smuggled + b"\r\n0\r\n\r\n",
        ),
        "smuggled: behind a chunk's missing CRLF": _post(
            "Transfer-Encoding: chunked", body=b"5\r\nabcde0\r\n\r\n" + smuggled
        ),
        "smuggled: behind a size of 2**64 + 5": _post(
            "Transfer-Encoding: chunked",
            body=b"10000000000000005\r\nabcde\r\n0\r\n\r\n" + smuggled,
        ),
        "smuggled: in a trailer": _post(
            "Transfer-Encoding: chunked", body=b"0\r\n" + smuggled + b"\r\n"
        ),
        "smuggled: behind a head that LF ends": b"GET / HTTP/1.1\nHost: a\n\n" + smuggled,
        "smuggled: behind a folded Content-Length": _post(
            "Content-Length:\r\n 5", body=b"abcde" + smuggled
        ),
    }


def _every() -> dict[str, bytes]:
    cases: dict[str, bytes] = {}
    groups = (
        _lengths(),
        _codings(),
        _chunks(),
        _fields(),
        _request_lines(),
        _expectations(),
        _persistence(),
        _pipelined(),
    )
    for group in groups:
        assert not cases.keys() & group.keys()
        cases |= group
    return cases


CASES = _every()

VALID = (
    request("/a?b=c", "X-Field: value", "Connection: keep-alive"),
    request("/a", method="HEAD"),
    request("/a/b", "Content-Type: application/json", method="POST", body=b'{"a": [1, 2.5]}'),
    request("/", "Transfer-Encoding: chunked", method="POST")
    + chunked(b"abcde", b"0123456789abcdef0", trailers=b"X-Sum: 1\r\n"),
    request("/", "Transfer-Encoding: chunked", method="PUT")
    + b'5;a=b\r\nabcde\r\nA;c="d"\r\n0123456789\r\n0\r\n\r\n',
    request("/", "Expect: 100-continue", method="POST", body=b"abcde"),
    request("/", "Connection: close", version="1.0"),
    request("/", "Connection: keep-alive", method="POST", body=b"abcde", version="1.0"),
    request(
        "http://lantern.example/a%20b?c", "Accept: */*", "Accept: text/html", method="DELETE"
    ),
    request("/a", "X-Forwarded-Proto: https", "X-Forwarded-For: 1.2.3.4", "Cookie: a=b"),
    request("/a") + request("/b", method="POST", body=b"abcde") + request("/c"),
    request("/", "Transfer-Encoding: chunked", method="POST") + chunked(b"abcde") + request("/b"),
)
"""Requests from which a mutator starts."""
