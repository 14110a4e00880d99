"JupyterLab in a real browser, as a person uses it: the workbench, and a training that is watched and stopped."
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from conftest import ROOT

from xar_lab.launch import free_port

# milliseconds until something counts as hanging: a small model is trained meanwhile, on cores that are shared with
# other tests
PATIENCE = 300_000


@pytest.fixture(scope='session')
def chromium(request):
    "A browser; skipped without one, an error where nothing may be skipped."
    path = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not path:
        why = 'no chromium: apt-get install chromium'
        pytest.fail(why) if os.environ.get('XAR_LAB_NO_SKIP') else pytest.skip(why)
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path,
                                    args=['--no-sandbox', '--disable-gpu', '--disable-background-networking'])
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab on a copy of the notebooks, in which nothing was trained yet. Its address and folder."
    folder = tmp_path_factory.mktemp('lab')
    shutil.copytree(ROOT / 'nbs', folder / 'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    shutil.copy(ROOT / 'settings.ini', folder)
    # a fifth of the steps for the small model: clicks are tested, not its images
    explore = folder / 'nbs' / 'explore.ipynb'
    assert 'run = find_run()' in explore.read_text()
    explore.write_text(explore.read_text().replace('run = find_run()', 'run = find_run(steps=100)'))
    port = free_port()
    server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', f'--port={port}',
                               '--IdentityProvider.token=', '--LabApp.news_url=None'],
                              cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    address = f'http://127.0.0.1:{port}'
    for _ in range(200):
        try: urllib.request.urlopen(f'{address}/api'); break
        except OSError: time.sleep(.2)
    yield address, folder
    os.killpg(server.pid, signal.SIGTERM)
    server.wait()


def watched(chromium, own):
    "A page of a laptop's size, the errors on its console, and its requests to other hosts."
    page = chromium.new_page(viewport=dict(width=1366, height=768))
    page.set_default_timeout(PATIENCE)
    errors, foreign = [], []
    page.on('console', lambda m: errors.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: errors.append(str(e)))
    page.on('request', lambda r: None if r.url.startswith((own, own.replace('http', 'ws'), 'data:', 'blob:'))
            else foreign.append(r.url))
    return page, errors, foreign


def write_notebook(path, cells):
    cell = dict(cell_type='code', metadata={}, outputs=[], execution_count=None)
    kernel = dict(name='python3', display_name='Python 3', language='python')
    path.write_text(json.dumps(dict(
        cells=[cell | dict(id=f'cell{n}', source=source) for n, source in enumerate(cells)],
        metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))


def run_all(page, address, notebook):
    from playwright.sync_api import TimeoutError as NotHeard
    page.goto(f'{address}/lab/tree/nbs/{notebook}?reset')
    page.wait_for_selector('.jp-Notebook .jp-Cell')
    page.wait_for_timeout(1500)
    select = page.locator('.jp-Dialog button.jp-mod-accept')
    prompts = "[...document.querySelectorAll('.jp-InputPrompt')]"
    sent = prompts + ".some(p => /\\[[*\\d]/.test(p.textContent))"
    # JupyterLab does not hear it before the notebook is its current one: then again, as a person would
    for _ in range(6):
        if select.count(): select.first.click()                                # which kernel
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=PATIENCE)
        page.get_by_role('menuitem', name='Run', exact=True).click()
        page.locator('#jp-mainmenu-run').get_by_text('Run All Cells', exact=True).click()
        try: return page.wait_for_function(sent, timeout=20_000)
        except NotHeard: page.keyboard.press('Escape')                     # the menu, if it is still open
    raise AssertionError("JupyterLab did not hear 'Run All Cells'")


def pictures(explorer):
    "What a figure shows: its images, and heat maps, which are images to a browser."
    return explorer.locator('.js-plotly-plot').evaluate_all("plots => plots.flatMap(p => "
                                                            "[...p.querySelectorAll('image')].map(i => "
                                                            "i.getAttribute('href') || i.getAttribute('xlink:href') || "
                                                            "i.href.baseVal))")


def at_rest(page, explorer):
    "The pictures, once they no longer change: on a slow machine what was done before may still be drawn."
    found, changed, until = pictures(explorer), 0, time.monotonic() + PATIENCE / 1000
    while time.monotonic() < until:
        page.wait_for_timeout(500)
        before, found = found, pictures(explorer)
        if found and found == before: return found
        changed += found != before
        explorer.scroll_into_view_if_needed()          # what is drawn above it may have moved it away
    raise AssertionError(f'no picture that stays: {len(found)} now, changed {changed} times; '
                         f'it shows {explorer.inner_text()[:500]!r}')


def changes(page, explorer, act, seen=lambda before, now: now != before):
    "Do something, and wait until the pictures are others, or as `seen` says: a figure draws its parts one by one."
    explorer.scroll_into_view_if_needed()
    before, until = at_rest(page, explorer), time.monotonic() + PATIENCE / 1000
    act()
    while time.monotonic() < until:
        page.wait_for_timeout(200)
        if (now := pictures(explorer)) and seen(before, now): return before, now
    raise AssertionError('the picture did not change')


def arrow(explorer, which, key, times=1):
    def act():
        handle = explorer.locator('.noUi-handle').nth(which)
        handle.focus()
        for _ in range(times): handle.press(key)
    return act


def test_the_workbench_from_top_to_bottom(chromium, lab, capsys):
    address, folder = lab
    page, errors, foreign = watched(chromium, address)
    started = time.perf_counter()
    run_all(page, address, 'explore.ipynb')
    page.wait_for_selector('.xar-lab .js-plotly-plot image', state='attached', timeout=PATIENCE)
    first = time.perf_counter() - started
    page.wait_for_function("document.querySelectorAll('.xar-lab').length >= 10", timeout=PATIENCE)
    page.wait_for_function("document.querySelectorAll('.jp-mod-executing, .jp-InputPrompt').length && "
                           "![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))",
                           timeout=PATIENCE)
    with capsys.disabled():
        print(f'\n  explore.ipynb, nothing trained before: first explorer after {first:.0f} s, all cells after '
              f'{time.perf_counter() - started:.0f} s')
    assert (folder / 'runs' / 'digits-small').is_dir()
    assert not page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]').count()
    entities, contexts, player, curves, methods, rings = (page.locator('.xar-lab').nth(i) for i in range(6))

    changes(page, entities, arrow(entities, 0, 'ArrowRight'))          # the keyboard predicts entity 0
    assert entities.locator('.widget-readout').first.inner_text() == '0'
    def click():
        box = entities.locator('.js-plotly-plot .subplot.xy').first.bounding_box()
        page.mouse.click(box['x'] + .9 * box['width'], box['y'] + .1 * box['height'])
    changes(page, entities, click)          # the mouse entity 3, in the upper right corner
    assert entities.locator('.widget-readout').first.inner_text() == '3'
    mask = lambda: entities.locator('.js-plotly-plot').evaluate("plot => plot._fullLayout.xaxis2.domain")
    place, beside = mask(), entities.get_by_role('button', name='Beside')
    changes(page, entities, beside.click, lambda before, now: len(now) > len(before) and mask() != place)
    changes(page, entities, beside.click,          # and back: the same figure, with everything where it was
            lambda before, now: len(now) < len(before) and mask() == place)
    changes(page, entities, beside.click)
    entities.locator('select').first.select_option('scale')          # its default size, although the size was 4
    entities.get_by_text('scale: 5').wait_for()
    assert not entities.get_by_text('ValueError').count()
    entities.locator('select').first.select_option('cell')
    entities.get_by_text('cell: 4').wait_for()

    changes(page, contexts, arrow(contexts, 0, 'ArrowRight', 8))          # the mean of the times
    changes(page, contexts, lambda: contexts.get_by_role('button', name='Draw again').click())
    changes(page, contexts, lambda: contexts.locator('select').first.select_option('all contexts'))

    changes(page, player, arrow(player, -1, 'ArrowLeft', 30))          # back in time
    player.locator('select').first.select_option('7')
    changes(page, player, lambda: player.get_by_role('button', name='Generate').click())
    player.get_by_role('button', name='GIF').click()
    player.get_by_text('written: ').wait_for()
    assert len(list((folder / 'runs' / 'digits-small' / 'generated').glob('class7-seed1-*.gif'))) == 2
    player.locator('select').first.select_option('5')          # not drawn: the file is still called after the film
    player.get_by_text('The picture is still that of class 7, seed 1').wait_for()
    player.get_by_role('button', name='GIF').click()
    player.get_by_text('written: ').wait_for()
    assert not list((folder / 'runs' / 'digits-small' / 'generated').glob('class5-*'))
    player.get_by_label('seed').fill('3.7')
    player.get_by_label('seed').press('Enter')
    player.get_by_text("seed must be a whole number from 0 to 2147483647, got '3.7'").wait_for()
    runs = page.locator('select', has_text='demo: clothes').first          # the same view of another run
    runs.select_option('demo: clothes')
    player.get_by_text('class 3: ').wait_for()
    runs.select_option('digits-small')
    player.get_by_text('class 3, seed 1').wait_for()
    lines = lambda: curves.locator('.scatterlayer path.js-line').count()
    curves.scroll_into_view_if_needed()
    assert lines() == 2          # one run, raw and smoothed
    curves.locator('select').nth(2).select_option('time')
    curves.get_by_text('training time (').wait_for()
    curves.locator('select').nth(1).select_option('gradient_norm')
    curves.locator('.ytitle', has_text='gradient_norm').wait_for()
    curves.locator('input[type=text]').first.fill('0')
    curves.locator('input[type=text]').first.press('Enter')
    for _ in range(50):
        if lines() == 1: break
        page.wait_for_timeout(100)
    assert lines() == 1
    curves.get_by_role('button', name='Refresh').click()
    curves.get_by_role('button', name='Draw').click()          # the one run with itself
    curves.get_by_text('the same noise, seed 0').wait_for(timeout=PATIENCE)
    curves.locator('img').wait_for()
    assert curves.locator('.ytitle', has_text='gradient_norm').count() and lines() == 1
    changes(page, methods, arrow(methods, 0, 'ArrowRight'))          # VAR's second map
    methods.get_by_text('step 2 of 3: asks for 1 entity of 3').wait_for()
    changes(page, methods, lambda: methods.locator('select').first.select_option('nar'))
    methods.get_by_text('step 1 of 7: asks for 1 entity of 7').wait_for()
    changes(page, rings, arrow(rings, 0, 'ArrowRight', 2))          # the reader's own layout

    entities.locator('input[type=text]').first.fill('5')
    entities.locator('input[type=text]').first.press('Enter')
    entities.get_by_text('5 does not divide the 16 rows of the grid; possible: 1, 2, 4, 8, 16').wait_for()
    page.set_viewport_size(dict(width=1000, height=768))          # figures follow, and buttons keep their words
    fits = """plot => Math.abs(plot.clientWidth - plot.querySelector('.main-svg').clientWidth) <= 1 &&
                      plot.getBoundingClientRect().right <= innerWidth"""
    for explorer in (entities, contexts, player, curves, methods, rings):
        plot = explorer.locator('.js-plotly-plot')
        plot.scroll_into_view_if_needed()          # cells out of sight are not laid out
        for _ in range(100):
            if plot.evaluate(fits): break
            page.wait_for_timeout(100)
        assert plot.evaluate(fits)
    assert page.locator('.xar-lab button').evaluate_all("buttons => buttons.every(b => b.scrollWidth <= b.clientWidth)")
    assert not page.locator('.xar-lab .modebar-btn--logo').count()
    assert not errors and not foreign, (errors, foreign)
    page.close()


@pytest.mark.slow
def test_an_image_is_painted_over_and_drawn_again(chromium, lab):
    address, folder = lab
    source = ['from xar_lab.edit_painter import EditPainter\n', 'from xar_lab.widgets import find_run\n',
              'EditPainter(find_run(steps=100))']
    cell = dict(cell_type='code', id='paint', metadata={}, source=source, execution_count=None, outputs=[])
    about = json.loads((folder / 'nbs' / 'explore.ipynb').read_text()) | dict(cells=[cell])
    (folder / 'nbs' / 'paint.ipynb').write_text(json.dumps(about))
    page, errors, foreign = watched(chromium, address)
    run_all(page, address, 'paint.ipynb')
    painter, canvas = page.locator('.xar-lab').first, page.locator('.xar-canvas')
    painter.get_by_text('Paint what is to be drawn again').wait_for()
    picture = lambda: canvas.evaluate('canvas => canvas.toDataURL()')

    def until(ok):
        for _ in range(PATIENCE // 100):
            if ok(): return
            page.wait_for_timeout(100)
        raise AssertionError(painter.inner_text())

    def at(x, y):          # the middle of a pixel, of eight
        box = canvas.bounding_box()
        return box['x'] + (x + .5) * box['width'] / 8, box['y'] + (y + .5) * box['height'] / 8

    canvas.scroll_into_view_if_needed()
    page.mouse.move(*at(0, 5))
    page.mouse.down()
    for place in ((7, 5), (7, 7), (0, 7)): page.mouse.move(*at(*place))
    page.mouse.up()
    painter.get_by_text('8 tokens to draw, of entities 2 and 3').wait_for()
    page.mouse.move(0, 0)
    painter.get_by_role('button', name='Regenerate').click()
    painter.get_by_text('likeliest', exact=True).wait_for(timeout=PATIENCE)
    tiles, before = painter.locator('.xar-choices button'), picture()
    assert tiles.count() == 8
    tiles.nth(3).press('Enter')          # JupyterLab would edit the cell
    until(lambda: picture() != before)
    taken = picture()
    assert page.evaluate("document.activeElement.closest('.xar-choices') !== null")
    painter.get_by_role('button', name='Undo').click()
    until(lambda: picture() == before)
    painter.get_by_role('button', name='Redo').click()
    until(lambda: picture() == taken)
    painter.get_by_role('button', name='entity').click()
    canvas.focus()
    for key in ['ArrowLeft'] * 8 + ['ArrowUp'] * 8 + [' ', 'x', 'b']: page.keyboard.press(key)     # x: cut the cell
    painter.get_by_text('4 tokens to draw, of entity 0').wait_for()
    assert page.locator('.jp-Notebook .jp-Cell').count() == 1
    page.set_viewport_size(dict(width=1000, height=768))
    assert painter.locator('*').evaluate_all('all => all.every(e => e.getBoundingClientRect().right <= innerWidth + 1)')
    assert painter.locator('.jupyter-button').evaluate_all('all => all.every(b => b.scrollWidth <= b.clientWidth)')
    assert not errors and not foreign, (errors, foreign)
    page.close()


@pytest.mark.slow
def test_a_training_is_watched_and_stopped(chromium, lab):
    address, folder = lab
    notebook = json.loads((folder / 'nbs' / 'train.ipynb').read_text())
    [cell] = [c for c in notebook['cells'] if 'parameters' in c['metadata'].get('tags', [])]
    changed = dict(steps=6000, sample_every=40, sample_steps=4, log_every=5, eval_samples=20, name="'watched'")
    cell['source'] = ''.join(cell['source']) + ''.join(f'\n{k} = {v}' for k, v in changed.items())
    (folder / 'nbs' / 'watched.ipynb').write_text(json.dumps(notebook))
    page, errors, foreign = watched(chromium, address)
    run_all(page, address, 'watched.ipynb')
    view = page.locator('.xar-lab').first
    view.locator('.js-plotly-plot .scatterlayer path.js-line').first.wait_for(state='attached', timeout=PATIENCE)
    view.locator('img').wait_for(timeout=PATIENCE)          # the latest samples
    path = lambda: view.locator('.js-plotly-plot .scatterlayer path.js-line').first.get_attribute('d')
    before = path()
    for _ in range(100):
        page.wait_for_timeout(200)
        if path() != before: break
    assert path() != before and 'of 6000' in view.locator('.xar-said').inner_text()
    view.get_by_role('button', name='Stop').click()          # while the cell runs
    view.get_by_text('with a checkpoint; run the cell again to go on').wait_for(timeout=180_000)
    for _ in range(100):
        page.wait_for_timeout(200)
        done = list((folder / 'runs' / 'watched' / 'checkpoints').glob('step_*'))
        if done: break
    assert done and int(done[-1].name[5:]) < 6000
    assert not errors and not foreign, (errors, foreign)
    page.close()


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The documentation, built and served. Its address and folder."
    import functools
    import http.server
    import threading
    folder = tmp_path_factory.mktemp('docs') / 'site'
    built = subprocess.run([sys.executable, '-m', 'xar_lab.docs', 'build', '--out', folder], cwd=ROOT,
                           capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    handler = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}', folder
    server.shutdown()


@pytest.mark.slow
def test_the_documentation_is_whole_and_alive(chromium, site):
    address, folder = site
    page, errors, foreign = watched(chromium, address)
    pages = sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*.html'))
    # that every link leads somewhere, the build has checked
    assert {'index.html', 'entities.html', 'explore.html', 'papers/xar/index.html'} <= set(pages)
    for name in pages:
        reply = page.goto(f'{address}/{name}')
        assert reply.status == 200 and page.locator('h1').count(), name
        assert not page.get_by_text('Error displaying widget').count(), name

    page.goto(f'{address}/index.html')          # by links: front page, notebook, paper
    page.locator('main a[href="entities.html"]').first.click()
    page.get_by_role('heading', name='entities', exact=True).wait_for()
    assert page.locator('.katex').count() > 0                                                              # formulas
    # signatures with their comments
    assert page.get_by_text('factory(grid=(H, W) or (T, H, W), size=None, **options) -> EntityLayout').count()
    page.goto(f'{address}/papers.html')
    page.locator('main a[href="papers/var/index.html"]').first.click()
    page.get_by_role('heading', name='VAR').first.wait_for()

    page.goto(f'{address}/explore.html')          # a figure of plotly: its slider moves it
    figure = page.locator('.plotly-figure').filter(has=page.locator('.slider-container')).last
    figure.scroll_into_view_if_needed()
    figure.locator('image').first.wait_for(state='attached')
    shown = lambda: figure.locator('image').evaluate_all("images => images.map(i => i.getAttribute('href') || "
                                                         "i.href.baseVal)")
    before, box = shown(), figure.locator('.slider-rail-touch-rect').bounding_box()
    page.mouse.click(box['x'] + .3 * box['width'], box['y'] + .5 * box['height'])
    page.wait_for_timeout(1500)
    assert shown() != before

    page.goto(f'{address}/widgets.html')          # a widget: pictures that no kernel moves
    film = page.locator('.widget-figure').first
    film.locator('.widget-slider').wait_for()
    film.scroll_into_view_if_needed()
    caption = lambda: [t for t in film.locator('.widget-label').all_inner_texts() if t.startswith('entity')]
    before = caption()
    film.locator('.noUi-handle').focus()
    for _ in range(9): page.keyboard.press('ArrowRight')
    page.wait_for_timeout(500)
    assert caption() and caption() != before
    assert not errors and not foreign, (errors, foreign)
    page.close()


@pytest.mark.slow
def test_the_documentation_can_be_searched_and_read_in_the_dark(chromium, site):
    address, _ = site
    page, errors, foreign = watched(chromium, address)
    page.goto(f'{address}/index.html')
    box = page.locator('input[type=search], #quarto-search input, .search input').first
    if not box.is_visible(): page.locator('#quarto-search, .search, button[aria-label*=earch]').first.click()
    box.fill('noisy context learning')
    page.get_by_role('link', name='context', exact=False).first.wait_for()
    light = page.evaluate('getComputedStyle(document.body).backgroundColor')
    page.emulate_media(color_scheme='dark')
    page.reload()
    dark = page.evaluate('getComputedStyle(document.body).backgroundColor')
    grey = lambda colour: sum(map(int, colour[colour.index('(') + 1:-1].split(',')[:3]))
    assert grey(dark) < 200 < 600 < grey(light)
    assert not errors and not foreign, (errors, foreign)
    page.close()


def test_a_figure_that_comes_late_shows_the_last_state(chromium, lab):
    "Reading plotly takes three seconds, longer than a page waits for a widget; the figure changes before and after."
    address, folder = lab
    cells = ["""
import time
import plotly.graph_objects as go
from traitlets import Unicode
from xar_lab.widgets import LateFigure
wait = 'await new Promise(done => setTimeout(done, 3000));'
class Slow(LateFigure): _plotly = Unicode(wait + LateFigure._plotly.default_value).tag(sync=True)
shown = Slow(go.Figure(go.Scatter(y=[1, 2])))
shown""", """
time.sleep(.5)
shown.add_scatter(y=[3, 4])
shown.add_scatter(y=[5, 6])
shown.layout.title.text = 'early'
""", """
time.sleep(6)
shown.add_scatter(y=[7, 8])
shown.layout.xaxis.title.text = 'late'
"""]
    write_notebook(folder / 'nbs' / 'late.ipynb', cells)
    page, errors, foreign = watched(chromium, address)
    run_all(page, address, 'late.ipynb')
    page.locator('.xtitle', has_text='late').wait_for()
    assert page.locator('.gtitle').text_content() == 'early'
    assert page.locator('.scatterlayer path.js-line').count() == 4
    assert not errors and not foreign, (errors, foreign)
    page.close()


def test_a_page_of_compared_runs(chromium, little_run, tmp_path):
    "Opened from a disk: curves, a slider of checkpoints, both schemes; nothing is asked of anybody."
    from xar_lab.run_page import write_page
    shutil.copytree(little_run, tmp_path / 'other')
    saved = json.loads((tmp_path / 'other' / 'config.json').read_text())
    saved['config']['lr'] = .5
    (tmp_path / 'other' / 'config.json').write_text(json.dumps(saved))
    path = write_page([little_run, tmp_path / 'other'], tmp_path / 'report.html', classes=[3, 7], count=1)
    page, errors, foreign = watched(chromium, 'file://')
    page.goto(f'file://{path}')
    page.locator('.plot .scatterlayer path.js-line').nth(1).wait_for(state='attached')
    assert page.get_by_role('cell', name='0.5', exact=True).count() == 1          # the learning rate
    block = page.locator('.draws').first
    seen = lambda: block.locator('img:visible').evaluate_all("images => images.map(i => i.alt + i.naturalWidth)")
    last = seen()
    assert len(last) == 1 and not last[0].endswith('0'), last
    block.locator('input[type=range]').focus()
    page.keyboard.press('ArrowLeft')
    first = seen()
    assert len(first) == 1 and first != last
    page.keyboard.press('ArrowRight')
    assert seen() == last
    page.locator('.updatemenu-button', has_text='FLOPs').click()
    page.locator('.xtitle', has_text='FLOPs').wait_for()
    ink = lambda: page.evaluate("[getComputedStyle(document.body).color, "
                                "getComputedStyle(document.querySelector('.ytitle')).fill]")
    light = ink()
    page.emulate_media(color_scheme='dark')
    page.wait_for_function("before => getComputedStyle(document.querySelector('.ytitle')).fill != before", arg=light[1])
    assert ink()[0] == ink()[1] != light[0]
    for width in (1000, 1400):
        page.set_viewport_size(dict(width=width, height=800))
        page.wait_for_function('document.documentElement.scrollWidth <= innerWidth')          # plotly follows late
    assert not errors and not foreign, (errors, foreign)
    page.close()


@pytest.mark.slow
def test_runs_are_ticked_and_drawn(chromium, lab, little_run):
    "`RunCompare` in JupyterLab: a click on a line of the table, the slider, and a run that cannot draw."
    address, folder = lab
    for name in ('one', 'two', 'begun'): shutil.copytree(little_run, folder / 'compared' / name)
    shutil.rmtree(folder / 'compared' / 'begun' / 'checkpoints')
    cell = dict(cell_type='code', metadata={}, outputs=[], execution_count=None, id='cell')
    source = f"from xar_lab.run_compare import RunCompare\nRunCompare({str(folder / 'compared')!r})"
    kernel = dict(name='python3', display_name='Python 3', language='python')
    (folder / 'nbs' / 'compared.ipynb').write_text(json.dumps(dict(
        cells=[cell | dict(source=source)], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)))
    page, errors, foreign = watched(chromium, address)
    run_all(page, address, 'compared.ipynb')
    view = page.locator('.xar-compare')
    view.locator('.js-plotly-plot .scatterlayer').wait_for(state='attached')
    ticked = lambda: sorted(view.locator('.xar-picker input').evaluate_all(
        "boxes => boxes.filter(b => b.checked).map(b => b.name)"))
    assert len(ticked()) == 2
    for name in ('one', 'two', 'begun'):
        box = view.locator(f'.xar-picker input[name={name}]')
        if not box.is_checked(): view.locator('.xar-picker td', has_text=name).first.click()
    assert ticked() == ['begun', 'one', 'two']
    view.get_by_text('begun: no checkpoint').wait_for()
    view.get_by_label('classes').fill('3, 7')
    view.get_by_role('button', name='Draw').click()
    view.get_by_text('the same noise, seed 0').wait_for()
    assert view.locator('img:visible').count() == 2
    arrow(view, -1, 'ArrowLeft')()
    for _ in range(100):
        if view.locator('.xar-said', has_text='step 24').count(): break
        page.wait_for_timeout(100)
    assert view.locator('.xar-said', has_text='step 24').count() == 1
    assert not errors and not foreign, (errors, foreign)
    page.close()


@pytest.mark.slow
def test_a_token_says_what_it_looked_at(chromium, lab):
    address, folder = lab
    write_notebook(folder / 'nbs' / 'attention.ipynb', ["""
from xar_lab.attention_view import AttentionView
from xar_lab.config import TrainConfig
from xar_lab.training import train
AttentionView(train(TrainConfig(name='seen', steps=20, batch_size=16, sample_every=20, sample_steps=4)))"""])
    page, errors, foreign = watched(chromium, address)
    run_all(page, address, 'attention.ipynb')
    view = page.locator('.xar-lab').first
    view.get_by_text('entity 0, t = 1.00').wait_for()
    def click():
        box = view.locator('.js-plotly-plot .subplot.xy').first.bounding_box()
        page.mouse.click(box['x'] + .7 * box['width'], box['y'] + .1 * box['height'])
    changes(page, view, click)          # the first token of the upper right cell
    view.get_by_text('entity 1, token 0 at row 0, column 2, t = 1.00').wait_for()
    changes(page, view, arrow(view, 4, 'ArrowRight', 2))          # the keyboard: later
    changes(page, view, arrow(view, 2, 'ArrowRight'))          # and in one layer
    view.get_by_text('t = 0.50 · layer 0, mean of all heads').wait_for()
    view.get_by_role('button', name='Errors').click()
    view.get_by_text('errors on 100 held-out images').wait_for()
    view.locator('.js-plotly-plot').nth(1).wait_for(state='attached')
    assert not errors and not foreign, (errors, foreign)
    page.close()
