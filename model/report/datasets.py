"""What a built-in data set's own spec says of it, by the names that evaluations and recipes hold."""

from data_specs.read import built_in_names, load_spec


def data_set_title(name: str) -> str:
    """What readers call it; a data set that is not built in goes by its name."""
    return load_spec(name).title if name in built_in_names() else name


def named_protocol(dataset: str, protocol: str) -> str:
    """A recipe's protocol, "" being the data set's default one; "" again where nobody knows that."""
    if protocol or dataset not in built_in_names():
        return protocol
    return load_spec(dataset).default_protocol


def split_title(dataset: str, protocol: str) -> str:
    """Which samples train and which test; "" where the protocol is not a built-in one."""
    if dataset not in built_in_names():
        return ""
    try:
        return load_spec(dataset).protocol(protocol).title
    except ValueError:
        return ""
