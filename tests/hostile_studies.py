"""Bad studies and command lines: cases for `test_bad_input`."""

import yaml
from hostile import Case


def a_study(change, *arguments):
    """`prepare` of a study of two steps that is written after `change`; a change may return what
    to write instead."""

    def prepare(folder):
        steps = {
            "train": {"notebook": "01_train", "grid": {"seed": [0, 1]}, "parameters": {}},
            "alpha": {
                "notebook": "02_alpha_distribution",
                "parameters": {"runs": {"from": "train"}},
            },
        }
        content = change(steps) or yaml.safe_dump({"steps": steps})
        (folder / "wrong.yml").write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
        return ["study", str(folder / "wrong.yml"), "--out", str(folder / "out"), *arguments]

    return prepare


def as_it_is(steps):
    """No change."""


def parameters(step, **values):
    return a_study(lambda steps: steps[step]["parameters"].update(values))


def grid(**values):
    return a_study(lambda steps: steps["train"]["grid"].update(values))


def out(path):
    def prepare(folder):
        (folder / "file").write_text("in the way")
        return [*a_study(as_it_is)(folder)[:3], str(path(folder))]

    return prepare


CASES = [
    Case(name, "negmeta", prepare, words)
    for name, prepare, words in [
        (
            "an unknown study",
            lambda folder: ["study", "demos"],
            ("'demos'", "the studies here are"),
        ),
        ("a folder for a study", lambda folder: ["study", str(folder)], ("no such file",)),
        ("not YAML", a_study(lambda steps: b"steps: [\n  a"), ("wrong.yml", "not YAML", "line 2")),
        ("bytes", a_study(lambda steps: b"\xff\xfe\x00"), ("wrong.yml", "not YAML")),
        ("an empty file", a_study(lambda steps: b"\n"), ("wrong.yml", "it needs `steps:`")),
        ("no step", a_study(lambda steps: steps.clear()), ("wrong.yml", "at least one step")),
        ("steps as a list", a_study(lambda steps: b"steps: [1]"), ("it needs `steps:`",)),
        ("an unknown key", a_study(lambda steps: b"{steps: {a: {}}, stages: 1}"), ("'stages'",)),
        (
            "a step that is text",
            a_study(lambda steps: b"{steps: {a: b}}"),
            ("'a'", "`notebook:`", "'b'"),
        ),
        (
            "an unknown key of a step",
            a_study(lambda steps: steps["train"].update(param={})),
            ("'train'", "unknown key 'param'", "notebook, grid and parameters"),
        ),
        (
            "a step without notebook",
            a_study(lambda steps: steps["train"].pop("notebook") and None),
            ("'train'", "no notebook None; there are 00_explore"),
        ),
        (
            "parameters as a list",
            a_study(lambda steps: steps["train"].update(parameters=[1])),
            ("'train'", "parameters: [1]: must be names with values"),
        ),
        ("an unknown parameter", parameters("train", n_ways=5), ("'n_ways'", "it has alpha_init")),
        ("a grid over no parameter", grid(seeds=[1]), ("01_train has no parameter 'seeds'",)),
        ("a grid value that is no list", grid(seed=3), ("grid: seed: 3", "write it as [1, 2]")),
        ("a grid value that is an empty list", grid(seed=[]), ("grid: seed: []",)),
        ("the same value twice", grid(seed=[1, 1]), ("two jobs would be called train-1",)),
        (
            "a date",
            parameters("train", dataset=yaml.safe_load("2026-01-01")),
            ("step 'train'", "dataset=", "date", "must be text"),
        ),
        (
            "text for a number of a step",
            parameters("train", n_updates="abc"),
            ("step 'train': n_updates='abc': must be a whole number",),
        ),
        (
            "a number below the least",
            parameters("train", n_updates=0),
            ("step 'train': n_updates=0: must be at least 1",),
        ),
        ("text for a list", parameters("alpha", runs="train"), ("runs='train': must be a list",)),
        (
            "an unknown method",
            a_study(as_it_is, "--set", "train.method=mamml"),
            ("step 'train': method='mamml': not one of maml",),
        ),
        (
            "rates that do not go together",
            parameters("train", lr_schedule="cosine"),
            ("step 'train': lr_schedule='cosine'",),
        ),
        (
            "data that are not there",
            parameters("train", dataset="omniglot", data_dir="nowhere"),
            ("omniglot", "nowhere does not exist; correct data_dir"),
        ),
        ("an unknown step", parameters("alpha", runs={"from": "trian"}), ("no step 'trian'",)),
        ("a reference to nothing", parameters("alpha", runs={"seed": 0}), ("no step None",)),
        (
            "a step that needs itself",
            parameters("alpha", runs={"from": "alpha"}),
            ("need one another",),
        ),
        (
            "no such job",
            parameters("alpha", runs={"from": "train", "seed": 7}),
            ("step 'train' has no such job",),
        ),
        ("--set without =", a_study(as_it_is, "--set", "seed"), ("--set seed: write NAME=VALUE",)),
        (
            "--set of half a list",
            a_study(as_it_is, "--set", "seed=[1"),
            ("'[1' is not YAML", "close"),
        ),
        (
            "--set of no parameter",
            a_study(as_it_is, "--set", "sed=1"),
            ("--set sed: no such step",),
        ),
        (
            "--set of an empty grid",
            a_study(as_it_is, "--set", "train.seed=[]"),
            ("grid: seed: []",),
        ),
        ("no workers", a_study(as_it_is, "--workers", "0"), ("--workers 0: must be at least 1",)),
        (
            "workers in words",
            a_study(as_it_is, "--workers", "two"),
            ("--workers", "'two'", "--help"),
        ),
        ("an unknown option", lambda folder: ["study", "demo", "--fast"], ("--fast", "--help")),
        ("no command", lambda folder: [], ("command", "--help")),
        (
            "a file where the results should go",
            out(lambda f: f / "file"),
            ("file", "cannot be written"),
        ),
        (
            "a folder below a file",
            out(lambda f: f / "file" / "out"),
            ("out", "choose another folder"),
        ),
        (
            "a place not to be written to",
            out(lambda f: "/dev/null/out"),
            ("/dev/null/out", "choose"),
        ),
    ]
]
