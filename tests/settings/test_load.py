"""Settings: typed, from three places, refused with a sentence that names the fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from app.settings import SettingsError, load_settings
from tests.conftest import ROOT

DEFAULT_FILE = ROOT / "config" / "default.toml"


def refused(**variables: str) -> str:
    with pytest.raises(SettingsError) as error:
        load_settings({f"LANTERN_{name}": value for name, value in variables.items()})
    return error.value.format_message()


def test_the_default_file_has_every_setting_with_the_default_that_is_declared() -> None:
    """It is the documentation; a setting that it alone has would be refused as unknown."""
    declared, documented = load_settings({}), load_settings({"LANTERN_CONFIG": str(DEFAULT_FILE)})
    assert set(declared.origins.values()) == {"default"}
    assert set(documented.origins.values()) == {str(DEFAULT_FILE)}
    # Paths begin elsewhere.
    as_written = (
        {key: str(value).removeprefix(f"{base}/") for key, value in settings.values.items()}
        for settings, base in ((documented, DEFAULT_FILE.parent), (declared, ROOT))
    )
    assert next(as_written) == next(as_written)
    assert set(declared.values) == set(declared.origins)


def test_the_default_file_explains_every_setting() -> None:
    previous = ""
    for line in DEFAULT_FILE.read_text().splitlines():
        if " = " in line and not line.startswith("#"):
            # class_names shares the comment above feature_names.
            assert previous.startswith("#") or line.startswith("class_names"), line
        previous = line


def test_variables_win_over_the_file_which_wins_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[server]\nport = 9000\nthreads = 8\n")
    settings = load_settings({"LANTERN_CONFIG": str(file), "LANTERN_SERVER__PORT": "9001"})
    assert settings.server.port == 9001
    assert settings.server.threads == 8
    assert settings.server.host == "127.0.0.1"
    assert settings.origins["server.port"] == "LANTERN_SERVER__PORT"
    assert settings.origins["server.threads"] == str(file)


def test_variables_take_the_type_of_their_setting() -> None:
    settings = load_settings(
        {
            "LANTERN_LOGGING__FEATURES": "True",
            "LANTERN_SERVER__BODY_TIMEOUT_SECONDS": "0.5",
            "LANTERN_MODEL__VERSION": "12",
            "LANTERN_MODEL__FEATURE_NAMES": "age, income",
            "LANTERN_MODEL__CLASS_NAMES": '["no, never", "yes"]',
        }
    )
    assert settings.logging.features is True
    assert settings.server.body_timeout_seconds == 0.5
    assert settings.model.version == "12"
    assert settings.model.feature_names == ("age", "income")
    assert settings.model.class_names == ("no, never", "yes")


def test_gunicorns_variable_gives_the_prefix_unless_lanterns_own_does(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[server]\nprefix = "/file"\n')
    environ = {"LANTERN_CONFIG": str(file)}
    assert load_settings(environ).server.prefix == "/file"
    environ |= {"SCRIPT_NAME": "/script/"}
    settings = load_settings(environ)
    assert (settings.server.prefix, settings.origins["server.prefix"]) == ("/script", "SCRIPT_NAME")
    assert load_settings(environ | {"LANTERN_SERVER__PREFIX": "/own"}).server.prefix == "/own"
    assert load_settings(environ | {"LANTERN_SERVER__PREFIX": ""}).server.prefix == ""
    with pytest.raises(SettingsError, match=r"server\.prefix = 'x' \(SCRIPT_NAME\)"):
        load_settings({"SCRIPT_NAME": "x"})


def test_a_relative_model_path_starts_at_the_project_and_an_absolute_one_stays() -> None:
    assert load_settings({}).model.path == ROOT / "models" / "campaign-response"
    assert load_settings({"LANTERN_MODEL__PATH": "/srv/m"}).model.path == Path("/srv/m")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"SERVER__PROT": "1"},
            "Unknown setting server.prot (LANTERN_SERVER__PROT); did you mean 'port'?",
        ),
        (
            {"SERVR__PORT": "1"},
            "section 'servr', used by servr.port (LANTERN_SERVR__PORT); did you mean 'server'?",
        ),
        ({"LOGGING_FORMAT": "json"}, "two underscores"),
        ({"SERVER__PORT": "http"}, "server.port = 'http' (LANTERN_SERVER__PORT): must be an int"),
        ({"SERVER__PORT": "70000"}, "must be an integer from 1 to 65535."),
        ({"SERVER__PORT": "8000.0"}, "must be an integer from 1 to 65535"),
        ({"LOGGING__FEATURES": "1"}, "must be true or false"),
        ({"SERVER__PORT": "8000\n[a]\nb = 1"}, "must be an integer from 1 to 65535"),
        ({"LOGGING__FORMAT": "xml"}, "must be one of 'json', 'console'."),
        ({"MODEL__RUNTIME": "tensorflow"}, "must be one of 'auto', 'torch', 'onnx'."),
        ({"MODEL__DEVICE": "gpu"}, 'must be "cpu", "cuda" or "cuda:N".'),
        ({"MODEL__DEVICE": "cuda:"}, 'must be "cpu", "cuda" or "cuda:N".'),
        ({"MODEL__DEVICE": "cuda:0\n"}, 'must be "cpu", "cuda" or "cuda:N".'),
        (
            {"MODEL__BATCH_ROWS": "-1"},
            "must be an integer of at least 0 or one of 'auto'.",
        ),
        ({"SERVER__BODY_TIMEOUT_SECONDS": "0"}, "must be a finite number greater than 0."),
        ({"RELEASE__POLL_SECONDS": "0"}, "a finite number greater than 0 and at most 86400."),
        ({"SERVER__WORKERS": str(2**64)}, "must be an integer from 0 to 9223372036854775807."),
        ({"ACCESS__AUTH": "key"}, "'auto', 'keys', 'none'; did you mean 'keys'?"),
        ({"ACCESS__CORS_ORIGINS": "https://a.example/"}, "is not an origin"),
        ({"ACCESS__CORS_ORIGINS": "https://A.example"}, "is not an origin"),
        ({"ACCESS__CORS_ORIGINS": "https://a.example:443"}, "is not an origin"),
        ({"ACCESS__CORS_ORIGINS": "*,null"}, "'null' is not an origin"),
        ({"LIMITS__RATE": "fast"}, 'must be a number and a unit, such as "100/second"'),
        ({"LIMITS__RATE_STORAGE": "memcached://x"}, 'must be "memory://", or the URL of a Redis'),
        ({"LIMITS__RATE_STORAGE": "redis://x:port/0"}, "is not the URL of a Redis"),
        ({"SERVER__PROXIES": "-1"}, "must be an integer from 0 to 100."),
        ({"SERVER__PREFIX": "lantern"}, "is not an absolute path such as '/lantern'"),
        (
            {"SERVER__PREFIX": "/a/../b"},
            "(LANTERN_SERVER__PREFIX): '/a/../b' is not an absolute path",
        ),
        ({"CONFIG": "/nowhere.toml"}, "/nowhere.toml can't be read: No such file"),
    ],
)
def test_what_can_not_be_used_is_refused_by_name_and_place(
    variables: dict[str, str], said: str
) -> None:
    assert said in refused(**variables)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[server]\nport = "8000"\n', "must be an integer from 1 to 65535"),
        ("[server]\nport = true\n", "must be an integer from 1 to 65535"),
        ("[logging]\nfeatures = 1\n", "must be true or false"),
        ('[server]\nbody_timeout_seconds = "3"\n', "must be a finite number greater than 0."),
        ("[model]\nfeature_names = [1]\n", "Item 1: must be a string that is not empty."),
        ("[extra]\nx = 1\n", "Unknown setting section 'extra', used by extra.x ("),
        ("[extra]\n", "Unknown setting section 'extra'."),
        ("port = 1\n", "must be in a section"),
        ("[server\n", "is not TOML"),
    ],
)
def test_a_file_is_read_strictly(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content)
    message = refused(CONFIG=str(file))
    assert said in message
    assert str(file) in message or content == "[extra]\n"


def test_a_file_that_can_be_read_only_once_is_refused(tmp_path: Path) -> None:
    """Gunicorn's half of the settings would come from it, and the application's from nowhere."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SettingsError, match="pipe is not a regular file. It is read more than on"):
        load_settings({"LANTERN_CONFIG": str(pipe)})


def test_every_fault_is_told_at_once() -> None:
    message = refused(SERVER__PORT="x", LIMITS__MAX_BATCH_SIZE="0", LOGGING__COLOUR="1")
    for name in ("server.port", "limits.max_batch_size", "logging.colour"):
        assert name in message


def test_the_variables_that_kubernetes_adds_for_a_service_are_no_settings() -> None:
    links = {
        "LANTERN_SERVICE_HOST": "10.0.0.1",
        "LANTERN_SERVICE_PORT": "80",
        "LANTERN_SERVICE_PORT_HTTP": "80",
        "LANTERN_PORT": "tcp://10.0.0.1:80",
        "LANTERN_PORT_80_TCP": "tcp://10.0.0.1:80",
        "LANTERN_PORT_80_TCP_ADDR": "10.0.0.1",
        "LANTERN_CANARY_SERVICE_HOST": "10.0.0.2",
        "LANTERN_CANARY_PORT": "tcp://10.0.0.2:80",
    }
    of_another = {"LANTERN_SERVER_PORT": "tcp://10.0.0.3:80", "LANTERN_SERVER_SERVICE_PORT": "80"}
    assert set(load_settings(links | of_another).origins.values()) == {"default"}


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("LANTERN_SERVER_PORT", "; did you mean LANTERN_SERVER__PORT?"),
        ("LANTERN_SERVER_HOST", "; did you mean LANTERN_SERVER__HOST?"),
        ("LANTERN_LIMITS_MAX_BODY_BYTE", "; did you mean LANTERN_LIMITS__MAX_BODY_BYTES?"),
        ("LANTERN_PORT", "between section and key"),
        ("LANTERN_X", "between section and key."),
    ],
)
def test_a_variable_with_one_underscore_is_told_what_it_was_meant_to_be(
    variable: str, meant: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings({variable: "9001"})
    assert f"{variable} is not a setting: " in str(refusal.value.message)
    assert meant in refusal.value.message


def test_arguments_win_and_are_named_as_they_were_typed(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[models]\nmine = "x"\n')
    variables = {"LANTERN_CONFIG": str(file), "LANTERN_SERVER__PORT": "9001", "PORT": "9002"}
    arguments = {"model.path": "y", "server.port": 9003}
    settings = load_settings(variables | {"LANTERN_MODEL__NAME": "name"}, arguments)
    assert dict(settings.models) == {"": Path.cwd() / "y"}
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 9003)
    assert (settings.origins["model.path"], settings.origins["server.port"]) == ("MODEL", "--port")
    assert "models.mine" not in settings.values


def test_paths_are_shown_as_they_are_resolved(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[model]\npath = "x"\n')
    values = load_settings({"LANTERN_CONFIG": str(file)}).values
    assert values["model.path"] == str(tmp_path / "x")
    assert values["access.keys_file"] == str(Path.cwd() / "config" / "keys.json")


def test_the_clients_key_is_no_setting() -> None:
    settings = load_settings({"LANTERN_API_KEY": "s3cret"})
    assert set(settings.origins.values()) == {"default"}
    assert "s3cret" not in str(settings)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:s3cr@et@host:6379/0", "redis://user:***@host:6379/0"),
        ("redis://us@er:s3cret@host", "redis://us@er:***@host"),
        ("redis://:s3cret@host:6379", "redis://:***@host:6379"),
        ("redis://host:6379/0?password=s3cret&db=1", "redis://host:6379/0?password=***&db=1"),
        ("unix:///run/redis.sock?db=1&password=s3cret", "unix:///run/redis.sock?db=1&password=***"),
        ("redis://host:6379/0", "redis://host:6379/0"),
    ],
)
def test_a_password_in_a_url_is_not_shown(url: str, shown: str) -> None:
    settings = load_settings({"LANTERN_LIMITS__RATE_STORAGE": url})
    assert settings.values["limits.rate_storage"] == shown


def test_a_password_in_a_url_that_is_refused_is_not_shown() -> None:
    refusal = refused(LIMITS__RATE_STORAGE="redis://user:s3cret@host:x/0")
    assert "redis://user:***@host:x/0" in refusal
    assert "s3cret" not in refusal


def test_a_relative_file_of_keys_starts_at_the_project() -> None:
    assert load_settings({}).access.keys_file == ROOT / "config" / "keys.json"


def test_the_production_example_loads_and_overrides_something() -> None:
    file = ROOT / "config" / "production.toml"
    settings = load_settings({"LANTERN_CONFIG": str(file)})
    named = tomllib.loads(file.read_text())
    assert settings.server.host == named["server"]["host"] == "0.0.0.0"


def test_an_address_of_ipv6_may_be_written_as_urls_have_it() -> None:
    for text in ("::1", "[::1]"):
        assert load_settings({"LANTERN_SERVER__HOST": text}).server.host == "::1"


FILE_WITH_PORT = "[server]\nport = 9000\n"
FILE_WITH_HOST = '[server]\nhost = "::1"\n'


@pytest.mark.parametrize(
    ("variables", "file", "address", "origins"),
    [
        ({"PORT": "5000"}, "", ("0.0.0.0", 5000), ("PORT", "PORT")),
        ({"PORT": ""}, "", ("127.0.0.1", 8000), ("default", "default")),
        ({"PORT": "5000"}, FILE_WITH_PORT, ("0.0.0.0", 5000), ("PORT", "PORT")),
        ({"PORT": "5000"}, FILE_WITH_HOST, ("::1", 5000), ("FILE", "PORT")),
        (
            {"PORT": "5000", "LANTERN_SERVER__HOST": "127.0.0.1"},
            *("", ("127.0.0.1", 5000), ("LANTERN_SERVER__HOST", "PORT")),
        ),
        # The more exact variable: as `make serve PORT=9001` sets it, which leaves PORT there, too.
        (
            {"PORT": "5000", "LANTERN_SERVER__PORT": "9001"},
            *(FILE_WITH_PORT, ("127.0.0.1", 9001), ("default", "LANTERN_SERVER__PORT")),
        ),
        (
            {"PORT": "nonsense", "LANTERN_SERVER__PORT": "9001"},
            *("", ("127.0.0.1", 9001), ("default", "LANTERN_SERVER__PORT")),
        ),
    ],
)
def test_a_platform_says_the_port_unless_the_user_does(
    variables: dict[str, str],
    file: str,
    address: tuple[str, int],
    origins: tuple[str, str],
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(file)
    settings = load_settings(variables | ({"LANTERN_CONFIG": str(path)} if file else {}))
    assert (settings.server.host, settings.server.port) == address
    told = settings.origins["server.host"], settings.origins["server.port"]
    assert told == tuple(origin.replace("FILE", str(path)) for origin in origins)


def test_a_file_with_the_name_of_a_variable_is_no_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("LANTERN_PORTS.toml").write_text(FILE_WITH_PORT)
    settings = load_settings({"LANTERN_CONFIG": "LANTERN_PORTS.toml", "PORT": "5000"})
    assert settings.server.port == 5000


@pytest.mark.parametrize("text", ["http", "0", "70000", "80.5", "tcp://10.0.0.1:80", "-1"])
def test_a_port_of_a_platform_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings({"PORT": text})
    assert "Setting server.port = " in refusal.value.format_message()
    assert "(PORT): " in refusal.value.format_message()


def run_flask(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_what_is_in_force_and_where_it_came_from() -> None:
    ran = run_flask("config", LANTERN_SERVER__PORT="9001")
    assert ran.returncode == 0, ran.stderr
    rows = {line.split()[0]: line.split() for line in ran.stdout.splitlines()}
    assert rows["server.port"] == ["server.port", "9001", "LANTERN_SERVER__PORT"]
    assert rows["limits.max_batch_size"] == ["limits.max_batch_size", "10000", "default"]
    document = json.loads(run_flask("config", "--json").stdout)
    assert document["server.port"] == {"value": 8000, "origin": "default"}


@pytest.mark.parametrize(
    ("variables", "worker_class", "threads"),
    [
        ({}, "keepalive", 1),
        ({"MODEL__DEVICE": "cuda:1"}, "keepalive", 1),
        ({"MODEL__BATCH_ROWS": "32", "SERVER__POOL_THREADS": "16"}, "keepalive", 1),
        ({"SERVER__WORKER_CLASS": "gthread", "SERVER__THREADS": "16"}, "gthread", 16),
        ({"SERVER__WORKER_CLASS": "gthread"}, "gthread", 4),
        ({"SERVER__WORKER_CLASS": "sync", "MODEL__DEVICE": "cuda"}, "sync", 1),
    ],
)
def test_the_worker_class_is_the_keep_alive_worker_unless_another_is_chosen(
    variables: dict[str, str], worker_class: str, threads: int
) -> None:
    environ = {f"LANTERN_{name}": value for name, value in variables.items()}
    assert load_settings(environ).worker_class == worker_class
    ran = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--print-config", "wsgi:app"],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    printed = dict(line.split("=", 1) for line in ran.stdout.splitlines() if "=" in line)
    printed = {name.strip(): value.strip() for name, value in printed.items()}
    named = {"keepalive": "<KeepAliveWorker()>"}
    assert printed["worker_class"] == named.get(worker_class, worker_class)
    assert printed["threads"] == str(threads)


def test_a_setting_that_can_not_be_used_stops_the_start_with_a_sentence() -> None:
    ran = run_flask("config", LANTERN_SERVER__PORT="x")
    assert ran.returncode != 0
    assert "Setting server.port = 'x' (LANTERN_SERVER__PORT): must be an integer" in ran.stderr
    assert "Traceback" not in ran.stderr
    gunicorn = subprocess.run(
        [sys.executable, "-m", "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env={**os.environ, "LANTERN_SERVER__PROT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert gunicorn.returncode != 0
    assert gunicorn.stderr.startswith("Lantern can't start. Unknown setting server.prot")
    assert "Traceback" not in gunicorn.stderr


def test_several_models_have_names_and_the_first_is_the_default() -> None:
    settings = load_settings(
        {"LANTERN_MODELS__B": "models/b", "LANTERN_MODELS__A.1": "/elsewhere/a"}
    )
    assert list(settings.models.items()) == [
        ("a.1", Path("/elsewhere/a")),
        ("b", ROOT / "models" / "b"),
    ]


def test_a_single_model_has_the_name_of_the_settings_or_one_that_its_files_say() -> None:
    place = {"LANTERN_MODEL__PATH": "models/churn"}
    assert list(load_settings(place).models) == [""]
    assert list(load_settings(place | {"LANTERN_MODEL__NAME": "shop"}).models) == ["shop"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MODELS__A%B": "x"}, "models.a%b"),
        ({"MODELS__A": ""}, "models.a"),
        ({"MODELS__A": "x", "MODEL__PATH": "y"}, "remove one of the two"),
        ({"MODELS__A": "x", "MODEL__VERSION": "2"}, "remove one of the two"),
        ({"MODELS__A": "x", "MODEL__NAME": "b"}, "remove one of the two"),
        ({"MODELS__A/B": "x"}, "models.a/b"),
        ({"MODELS__.": "x"}, "the model's name must be at most 64 letters, digits and . _ + -"),
        ({"MODEL__NAME": "a/b"}, "model.name = 'a/b'"),
        ({"MODEL__NAME": ".."}, "model.name = '..'"),
        ({"MODEL__NAME": "x" * 65}, "it is used in URLs"),
        ({"RELEASE__POLL_SECONDS": "1e11"}, "release.poll_seconds"),
        ({"RELEASE__ROUTING_HEADER": "Content-Type"}, "release.routing_header"),
        ({"RELEASE__ROUTING_HEADER": "a b"}, "release.routing_header"),
    ],
)
def test_what_can_not_be_released_by_is_refused(variables: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings({f"LANTERN_{name}": value for name, value in variables.items()})
    assert said in refusal.value.format_message()


def test_what_a_worker_may_hold_is_at_least_one_body() -> None:
    variables = {"LANTERN_LIMITS__MAX_HELD_BYTES": "1000"}
    with pytest.raises(
        SettingsError, match=r"MAX_HELD_BYTES\) is 1000, which is less than .+ 83886"
    ):
        load_settings(variables)
    load_settings(variables | {"LANTERN_LIMITS__MAX_BODY_BYTES": "1000"})


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[models]\na = "x"\na = "y"\n')
    assert "is not TOML" in refused(CONFIG=str(file))
    file.write_text('[models]\nChurn = "x"\n')
    message = refused(CONFIG=str(file), MODELS__CHURN="y")
    assert f"models.Churn ({file}) and models.churn (LANTERN_MODELS__CHURN)" in message
    assert "differ only in case" in message
    file.write_text('[models]\n"" = "x"\n')
    assert "the model's name must be a string that is not empty" in refused(CONFIG=str(file))
    # A variable replaces the entry of the file that has its name.
    file.write_text('[models]\nchurn = "x"\n')
    settings = load_settings({"LANTERN_CONFIG": str(file), "LANTERN_MODELS__CHURN": "/y"})
    assert dict(settings.models) == {"churn": Path("/y")}


@pytest.mark.parametrize("value", ["9" * 5000, "0x" + "f" * 5000, "[" * 5000, "1" * 30, "1e400"])
def test_what_no_number_can_be_is_refused_in_a_short_sentence(value: str, tmp_path: Path) -> None:
    """Python neither reads nor writes an integer of so many digits, and no array so deep."""
    for name in ("workers", "drain_seconds" if value != "1" * 30 else "port"):
        message = refused(**{f"SERVER__{name.upper()}": value})
        assert f"Setting server.{name} = " in message
        assert len(message) < 500
    file = tmp_path / "mine.toml"
    file.write_text(f"[server]\nport = {value}\n")
    assert str(file) in refused(CONFIG=str(file))


def test_every_fault_of_a_list_is_told_with_its_place() -> None:
    message = refused(MODEL__FEATURE_NAMES='["age", "", 3]')
    assert "Item 2: must be a string that is not empty. Item 3: must be a string that" in message


@pytest.mark.parametrize("variable", ["PORT", "SCRIPT_NAME", "LANTERN_MODEL__NAME"])
def test_a_variable_that_is_no_text_is_refused_by_name(variable: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} is not UTF-8.$"):
        load_settings({variable: "\udcff"})


def test_a_header_is_named_in_ascii() -> None:
    """A sign that a Kelvin is written by is a "k" to an expression that ignores case."""
    assert "callers can set" in refused(RELEASE__ROUTING_HEADER="X-\u212aey")
