"Part of the weights trains, chosen by a pattern: the rest stays, costs nothing, and a resumed run is the same."
import json

import pytest
import torch

from xar_lab.build import build
from xar_lab.checkpoints import load_model, read_tensors
from xar_lab.cost import plan
from xar_lab.runs import checkpoints, good_checkpoint
from xar_lab.state import load_run, place
from xar_lab.step import register_optimizer
from xar_lab.trainable import frozen_names, sizes_of
from xar_lab.training import TrainConfig, train

HALF = 'decoder|pred|class_emb'      # the second stack, the head and the classes: half of the weights
SIZES = dict(batch_size=16, log_every=1, save_every=3, sample_every=6, sample_steps=1, precision='float32')


def sgd(model, config): return torch.optim.SGD(model.parameters(), lr=config.lr, momentum=.9)      # of all parameters


register_optimizer('plain_sgd', sgd)


def config(folder, name, **more):
    return TrainConfig(**SIZES | dict(name=name, runs_dir=str(folder), steps=6, trainable=HALF) | more)


def stored(folder, name):
    return read_tensors(checkpoints(folder)[-1] / f'{name}.safetensors')


def bytes_of(folder):
    return sum(path.stat().st_size for path in checkpoints(folder)[-1].glob('*.safetensors'))


MUON = pytest.param('muon', marks=pytest.mark.slow)

@pytest.mark.parametrize('optimizer', ['adamw', MUON, 'plain_sgd'])
def test_half_of_the_weights_stay(tmp_path, optimizer):
    begun = build(config(tmp_path, 'x', optimizer=optimizer)).model
    first, frozen = {n: p.clone() for n, p in begun.state_dict().items()}, frozen_names(begun)
    every, trained = sizes_of(begun)
    assert .45 < trained / every < .55
    half = train(config(tmp_path, 'half', optimizer=optimizer, weight_decay=.1))
    whole = train(config(tmp_path, 'whole', optimizer=optimizer, weight_decay=.1, trainable=None))
    model, average, moments = (stored(half, name) for name in ('model', 'ema', 'optimizer'))
    assert all(torch.equal(average[n], first[n]) for n in frozen)                       # they do not move
    moved = [not torch.equal(model[n], first[n]) for n in model]                        # all others do
    assert all(moved) or optimizer == 'plain_sgd' and sum(moved) > len(moved) / 2       # which starts slowly, from 0
    assert model.keys() == first.keys() - frozen and average.keys() == first.keys()
    assert {n.rpartition('/')[0] for n in moments} <= model.keys()
    assert bytes_of(half) < .7 * bytes_of(whole)
    for ema, own in ((True, average), (False, average | model)):                        # strangers read it whole
        assert all(torch.equal(p, own[n]) for n, p in load_run(half, ema=ema)[0].state_dict().items())
    assert load_model(checkpoints(half)[-1] / 'ema.safetensors')


@pytest.mark.parametrize('optimizer', ['adamw', MUON])
def test_resumed_to_the_bit(tmp_path, optimizer):
    whole = train(config(tmp_path, 'whole', optimizer=optimizer, dropout=.1))
    broken = config(tmp_path, 'broken', optimizer=optimizer, dropout=.1)
    train(broken, follow=lambda row: row['step'] >= 4)
    assert train(broken) and checkpoints(whole)[-1].name == checkpoints(tmp_path / 'broken')[-1].name
    for name in ('model', 'ema', 'optimizer'):
        a, b = stored(whole, name), stored(tmp_path / 'broken', name)
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name
    other = config(tmp_path, 'broken', optimizer=optimizer, dropout=.1, trainable=None)
    with pytest.raises(ValueError, match='other parameters \\(trainable'): train(other)


def test_it_trains_as_before_what_trains(tmp_path):
    "The first step of what trains is that of a run in which everything trains; clipping is of what trains."
    a, b = (train(config(tmp_path, f'{pattern}', trainable=pattern, clip=1e9, save_every=1, keep=9))
            for pattern in (HALF, None))
    first = [read_tensors(checkpoints(folder)[0] / 'model.safetensors') for folder in (a, b)]
    assert all(torch.equal(p, first[1][n]) for n, p in first[0].items())


def test_it_may_start_from_another_run(tmp_path):
    "New classes for a trained run: only they move, and what is frozen is what was learned."
    source = train(config(tmp_path, 'source', trainable=None))
    tuned = train(config(tmp_path, 'tuned', trainable='class_emb', init_from=str(source)))
    learned, average = stored(source, 'ema'), stored(tuned, 'ema')
    assert {n for n in learned if not torch.equal(learned[n], average[n])} == {'class_emb.weight'}
    assert list(stored(tuned, 'model')) == ['class_emb.weight'] and load_run(tuned, ema=False)


class Here:
    "Stands for accelerate's Accelerator with one process."
    device = torch.device('cpu')
    def prepare(self, model): return model


def held(pattern):
    "Bytes of weights, average, gradients and moments after a step, shared ones once."
    parts = build(TrainConfig(trainable=pattern))
    state, network = place(parts, Here(), 'float32')
    network(torch.randn(2, 16, 4), torch.rand(2, 4), torch.tensor([3, 10])).square().mean().backward()
    state.optimizer.step(); state.ema.update_parameters(state.model)
    tensors = [*state.model.parameters(), *state.ema.module.parameters()]
    tensors += [p.grad for p in state.model.parameters() if p.grad is not None]
    tensors += [t for of in state.optimizer.state.values() for t in of.values() if t.ndim]
    return sum({t.untyped_storage().data_ptr(): t.nbytes for t in tensors}.values())


def test_memory_is_smaller():
    "As planned, and as counted: gradients, moments and average of what is frozen are not there."
    parts = {pattern: build(TrainConfig(trainable=pattern), device='meta') for pattern in (None, HALF, 'class_emb')}
    costs = {pattern: plan(part) for pattern, part in parts.items()}
    whole, half, classes = costs.values()
    states = {k: c['memory_bytes'] - c['micro_batch'] * c['memory_per_image'] for k, c in costs.items()}
    assert states[None] == 20 * whole['parameters'] and states[HALF] == 4 * half['parameters'] + 16 * half['trained']
    assert classes['flops_per_image'] < half['flops_per_image'] < whole['flops_per_image'] == 3 * (
        whole['flops_per_image'] // 3)
    assert half['memory_per_image'] < whole['memory_per_image']
    counted = {pattern: held(pattern) for pattern in costs}
    print('bytes held:', counted)
    assert counted == states


def test_a_damaged_file_of_either_kind_is_seen(tmp_path):
    run = train(config(tmp_path, 'run', keep=2))
    path = checkpoints(run)[-1] / 'ema.safetensors'
    data = bytearray(path.read_bytes()); data[-1] ^= 1; path.write_bytes(data)
    assert load_run(run, ema=False) and good_checkpoint(run) == checkpoints(run)[0]     # what is frozen is read there


def test_bad_patterns_end_before_work(tmp_path):
    for pattern, said in (('ada_ln', "trainable 'ada_ln' is found in none of 64 names of parameters, such as"),
                          ('(', "trainable must be a regular expression, got '\\('")):
        with pytest.raises(ValueError, match=said) as e: train(config(tmp_path, 'bad', trainable=pattern))
        assert '\n' not in str(e.value) and not (tmp_path / 'bad').exists()


def test_the_run_says_how_much_trains(tmp_path, capsys):
    run = train(config(tmp_path, 'run'))
    cost = json.loads((run / 'cost.json').read_text())
    assert f"{cost['parameters']:,} parameters ({cost['trained']:,} of them train)" in capsys.readouterr().out
