"""How commands end."""

from recipe.core import cli


def test_ctrl_c_is_one_word_and_the_exit_code_of_any_stopped_program(capsys):
    def stopped(_: list[str] | None) -> None:
        raise KeyboardInterrupt

    assert cli.run(stopped) == 130
    assert capsys.readouterr().err == "stopped\n"
