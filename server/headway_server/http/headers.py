"""Parses headers of requests according to RFC 9110."""


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a reply may be compressed with gzip: the header has gzip or `*` with a weight above 0."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        coding, *parameters = (item.strip() for item in part.split(";"))
        weights[coding] = min((_weight(parameter) for parameter in parameters), default=1.0)
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def is_utf8(media_type_parameter: str) -> bool:
    """Whether a parameter of a content type is not a charset other than UTF-8."""
    name, _, value = media_type_parameter.partition("=")
    return name.strip().lower() != "charset" or value.strip().strip('"').lower() in ("utf-8", "utf8")
