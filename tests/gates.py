"""The house rules that no other tool checks: one idea per exported cell, no long module, imports that point one way.

    python tests/gates.py                # all notebooks
    python tests/gates.py 06_model       # one of them
    python tests/gates.py --path 06_model    # where it is
"""
import ast
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINE, CELL, CLASS, MODULE = 120, 30, 80, 400  # characters of a line, lines of an exported cell, of a class, of a module
TRAINING = 250                                    # lines of a module of the training part
RECIPE = 50                                       # lines of a recipe, imports, comments and blank lines apart


def notebooks(name=''):
    "The notebooks of the project, or the one called `name`."
    found = sorted(p for p in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts
                   and not p.name.startswith(('_', '.')))
    chosen = [p for p in found if name in ('', p.stem, p.relative_to(ROOT / 'nbs').with_suffix('').as_posix())]
    if not chosen: sys.exit(f"no notebook {name!r}; known: {', '.join(p.stem for p in found)}")
    return chosen


def cells(path):
    "(number, source, whether exported) of the code cells of a notebook."
    for number, cell in enumerate(json.loads(path.read_text())['cells']):
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'code': yield number, source, source.lstrip().startswith('#| export')


def module_of(path):
    "The module that a notebook exports; None: none."
    found = (re.match(r'\s*#\| default_exp ([\w.]+)', source) for _, source, _ in cells(path))
    return next((f[1] for f in found if f), None)


def file_of(module):
    "Where a module is; 'recipes.x' is in a package of its own."
    return ROOT / 'xar_lab' / f"{module.replace('.', '/')}.py"


def body(source):
    "The lines of an exported cell that count: not its directive, not blank lines around."
    return re.sub(r'^\s*#\| export\s*\n', '', source).strip('\n').split('\n')


def faults_of_cells(path):
    "Exported cells that hold more than one idea, and long lines anywhere."
    for number, source, exported in cells(path):
        where = f'{path.relative_to(ROOT)}, cell {number}'
        for line in source.split('\n'):
            if len(line) > LINE:
                yield f'{where}: a line of {len(line)} characters, at most {LINE}: {line.strip()[:60]} …'
        if not exported: continue
        lines, tree = body(source), ast.parse(source)
        one_class = len(tree.body) == 1 and isinstance(tree.body[0], ast.ClassDef)
        imports = all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body)
        most = CLASS if one_class else CELL
        if len(lines) > most and not imports:
            yield f"{where}: {len(lines)} lines, at most {most} for {'a class' if one_class else 'a cell'}"


def order():
    "Module → name of its notebook, which gives the order; what has no number is outside of it."
    return {module: path.stem for path in notebooks() if re.match(r'\d', path.name) and (module := module_of(path))}


def imports_of(tree):
    "(module, names) of the imports from this library, wherever they stand."
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom): continue
        inside = node.level or (node.module or '').partition('.')[0] == 'xar_lab'
        if inside:
            yield (node.module or '').removeprefix('xar_lab').removeprefix('.'), [alias.name for alias in node.names]


def own_lines(text):
    "Lines of a module besides imports, its docstring and __all__, comments and blank lines."
    lines, taken = text.split('\n'), []
    for node in ast.parse(text).body:
        listed = isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__'
        if listed or isinstance(node, (ast.Import, ast.ImportFrom)): continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant): continue
        taken += lines[node.lineno - 1:node.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith('#') for line in taken)


def faults_of_module(module, known):
    "Imports from a higher number, private names of another module, and too many lines."
    text = file_of(module).read_text()
    for other, names in imports_of(ast.parse(text)):
        if known.get(other, '') >= known.get(module, '~'):
            yield f'{known[module]} imports from {known[other]}, a later room'
        private = [name for name in names if name.startswith('_')]
        if private: yield f"xar_lab/{module}.py imports {', '.join(private)} of {other}, which is private there"
    if module.startswith('recipes.') and (own := own_lines(text)) > RECIPE:
        yield f'{file_of(module).relative_to(ROOT)} has {own} lines besides imports, at most {RECIPE}'
    count, most = text.count('\n'), TRAINING if known.get(module, '').startswith('2') else MODULE
    if count > most: yield f'{file_of(module).relative_to(ROOT)} has {count} lines, at most {most}'


def faults(name=''):
    "Everything that is wrong with the notebooks and their modules."
    known = order()
    for path in notebooks(name):
        yield from faults_of_cells(path)
        if module := module_of(path): yield from faults_of_module(module, known)


if __name__ == '__main__':
    if sys.argv[1:2] == ['--path']: sys.exit(print(notebooks(sys.argv[2])[0].relative_to(ROOT)))
    found = list(faults(*sys.argv[1:2]))
    print('\n'.join(found) or 'gates: nothing to object')
    sys.exit(bool(found))
