"Runs beside each other, by the run notebook."
import json
import shutil

from conftest import papermill, printed, refused

def test_a_page_from_the_command_line(little_run, tmp_path):
    shutil.copytree(little_run, tmp_path / 'other')
    told = dict(runs=[str(little_run), str(tmp_path / 'other')], runs_dir=str(tmp_path / 'runs'), classes=[3], count=1)
    done = papermill('compare', tmp_path / 'out.ipynb', **told)
    assert done.returncode == 0, done.stderr[-2000:]
    path = tmp_path / 'runs' / 'compare-little-other' / 'report.html'
    text, said = path.read_text(), ''.join(printed(tmp_path / 'out.ipynb'))
    assert f'page {path}' in said and 'drawing little, step 30' in said
    assert text.count('<img ') == 4 and 'nothing differs' in text and 'little: not evaluated yet' in text
    cells = json.loads((tmp_path / 'out.ipynb').read_text())['cells']
    assert any('application/vnd.plotly.v1+json' in o.get('data', {}) for c in cells for o in c.get('outputs', []))


def test_bad_input_is_one_line(little_run, tmp_path):
    told = dict(runs=[str(little_run), str(tmp_path)], runs_dir=str(tmp_path), out=str(tmp_path / 'x.html'))
    (tmp_path / 'mine.html').write_text('mine')
    for values, says in (
            (dict(runs=[str(little_run)]), 'two run folders or more'), (dict(runs='runs/a'), 'two run folders or more'),
            (dict(runs=[str(little_run)] * 2), 'got one twice'), (dict(runs=None), 'two run folders or more, got []'),
            (dict(runs=[str(little_run), 'runs/gone']), 'no run at'), (dict(rnus=[]), 'unknown parameter rnus'),
            (dict(classes='3'), 'classes must be a list'), (dict(classes=[-1]), 'a class must be'),
            (dict(checkpoints=0), 'checkpoints must be'), (dict(out='x.txt'), 'must end in .html'),
            (dict(out=str(tmp_path / 'mine.html')), 'is not a page of compared runs'), (dict(axis='x'), 'unknown axis'),
            (dict(count=0), 'count must be'), (dict(uses=['gone_module']), 'gone_module')):
        said = refused('compare', **told | values)
        assert says in said and '\n' not in said, (values, said)
