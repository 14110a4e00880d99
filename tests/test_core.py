"""The open core: what a network reads in generation is what it read in training, for every context, head and block."""
import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import xar_lab.recipes.axial
import xar_lab.recipes.mvar  # noqa: F401, both for their blocks
from xar_lab.blocks import XARConfig
from xar_lab.context import CONTEXTS, AnyOrderContext, Context, check_query, make_context
from xar_lab.entities import make_layout
from xar_lab.flow import CodesFlow, make_flow
from xar_lab.heads import HEADS, register_head
from xar_lab.loss import Draws, batch_loss, draw_asked, reading
from xar_lab.model import XAR
from xar_lab.recipes.mar import MaskedContext
from xar_lab.sampling import check_generation, generate
from xar_lab.views import View, taken

CHANNELS, IMAGES = 3, 2
MORE = dict(size=dict(kind='vector', shape=[2]), edges=dict(kind='map', shape=[1, 4, 4]),
            words=dict(kind='prefix', shape=[3, 5]))                        # given beside the class
LAYOUTS = {'scale': {}, 'antidiagonal': {}, 'cell': dict(size=2)}          # two of unequal sizes, one of equal ones
TRIED_ON = ['scale', 'cell', pytest.param('antidiagonal', marks=pytest.mark.slow)]


class TwoBlocks(nn.Module):
    "A head from outside that mixes the tokens of a group: one time for all of them, two draws."
    apart, per_token, draws = True, False, 2

    def __init__(self, config, layout):
        super().__init__()
        self.read, self.say = nn.Linear(config.in_channels + 1, config.width), nn.Linear(config.width, config.said)
        self.mix = nn.Linear(config.width, config.width)

    def forward(self, h, x, t, sizes):
        y = self.read(torch.cat([x, t[..., None].to(x)], -1)) + (h[:, None] if x.ndim == 4 else h)
        groups = [part.tanh() + self.mix(part.tanh().mean(-2, keepdim=True)) for part in y.split(sizes, -2)]
        return self.say(torch.cat(groups, -2))


class Near(Context):
    "A context from outside: each entity sees the one before it, and no other."
    def view(self, layout):
        e = torch.arange(layout.n_entities)
        before, same = e[:, None] - e == 1, e[:, None] == e
        sees = torch.cat([torch.cat([same, same & ~same], 1), torch.cat([before, same], 1)])
        return View(torch.cat([e, e]), sees, torch.arange(2 * len(e)) >= len(e))

    def sample(self, batch, layout, times, generator=None, device=None):
        t = super().sample(batch, layout, times, generator, device)
        return torch.cat([torch.zeros_like(t), t], 1)


register_head('two_blocks', TwoBlocks)
CONTEXTS.register('near', Near)
EVERY = sorted({*CONTEXTS} - {'next_scale'} | {'masked'})              # next_scale is for residual maps alone
APART = {name for name in HEADS if getattr(HEADS[name], 'apart', False)}


def fits(context, head):
    if context in ('random', 'increasing', 'decreasing', 'shared'): return head not in APART
    return head in APART if context == 'causal' else True


PAIRS = [pair for pair in itertools.product(EVERY, sorted(HEADS)) if fits(*pair)]
FIRST = {context: 'linear' if fits(context, 'linear') else 'token_mlp' for context in EVERY}
TRIED = [(*pair, 'attention') for pair in PAIRS] + [(*pair, block) for pair in FIRST.items()
                                                    for block in ('axial', 'linear_attention')]


def made(context, head, layout, block='attention'):
    "Layout, context, flow and a model with random weights, in float64."
    layout = make_layout(layout, 4, **LAYOUTS[layout])
    context = make_context(context)
    torch.manual_seed(0)
    config = XARConfig(48, (2, 1), heads=2, in_channels=CHANNELS, num_classes=5, init='published', head=head,
                       head_options=dict(depth=1) if head == 'token_mlp' else {}, blank=True, given=MORE, block=block)
    model = XAR(config, layout).eval().double()
    for parameter in model.given.parameters(): nn.init.normal_(parameter, std=.3)               # the zero starts left
    return SimpleNamespace(layout=layout, context=context, flow=make_flow(), model=model,
                           config=SimpleNamespace(batch_size=IMAGES))


def noise(seed=0):
    g = torch.Generator().manual_seed(seed)
    return lambda shape, *_: torch.randn(shape, generator=g, dtype=torch.float64)


def in_parallel(parts, tokens, n, where, known, x, t, labels):
    "The answer for one step of generation, by `forward`: the sequence of training, with everything before it clean."
    layout, context, model = parts.layout, parts.context, parts.model
    view = context.view(layout)
    entities = layout.entity_ids[where]                                                       # [n] or [B, n]
    asked = torch.zeros(IMAGES, layout.n_entities, dtype=torch.bool).scatter(1, entities.expand(IMAGES, -1), True)
    now = view.loss & asked[:, view.entity]                                                   # [B, G]
    if isinstance(context, MaskedContext):
        view = View(view.entity, view.sees, now)
        group_t = torch.where(now, t, torch.where(known[:, view.entity], 0., 1.))
    elif isinstance(context, AnyOrderContext):
        view = View(view.entity, known[:, None] | torch.eye(layout.n_entities).bool(), now)
        group_t = torch.where(now, t, torch.where(known, 0., 1.))
    else: group_t = torch.where(now, t, 0.)
    at = torch.zeros(IMAGES, layout.n_tokens, CHANNELS, dtype=torch.float64)
    at.scatter_(1, where.expand(IMAGES, -1)[..., None].expand_as(x), x)
    ids, group = view.token_ids(layout), view.group_ids(layout)
    fake = lambda *_: torch.where(now[:, group, None], at[:, ids], tokens[:, ids])            # states instead of a mix
    draws = Draws(view, group_t, torch.zeros(()), None, None, [])
    read, time, blank = reading(SimpleNamespace(**vars(parts) | dict(flow=SimpleNamespace(mix=fake))), tokens, draws)
    if not model.pred.apart:
        answer = model(read, time, labels, view, blank)
        places = torch.arange(len(ids)).expand(IMAGES, -1)
    else:
        places = view.asked(layout)
        states = taken(at[:, ids], places)
        answer = model(read, time, labels, view, blank, (states, torch.full(states.shape[:2], t)))
        places = places.expand(IMAGES, -1)
    found = torch.zeros(IMAGES, layout.n_tokens, answer.shape[2], dtype=torch.float64)
    for b in range(IMAGES):                                                        # where the group of this step is
        mine = now[b, group[places[b]]]
        found[b, ids[places[b][mine]]] = answer[b, mine]
    return taken(found, where)


@pytest.mark.parametrize('layout', TRIED_ON)
@pytest.mark.parametrize('context, head, block', TRIED)
@torch.no_grad()
def test_generation_reads_what_training_read(context, head, block, layout):
    parts = made(context, head, layout, block)
    layout, model, labels = parts.layout, parts.model, torch.tensor([1, 4])
    tokens, rand = noise(1)((IMAGES, layout.n_tokens, CHANNELS)), noise(2)
    rows = noise(3)
    given = dict(label=labels) | {name: rows((IMAGES, *spec['shape'])) for name, spec in MORE.items()}
    told, less = (hints := model.compared(given, ['label', 'words']))[:IMAGES], hints[IMAGES:]
    reader = parts.context.reader(model, hints, IMAGES)
    order = parts.context.order(IMAGES, layout, rand)
    known = torch.zeros(IMAGES, layout.n_entities, dtype=torch.bool)
    for n, where in enumerate(order):
        ask = reader.ask(n, where, [1., .5, 0.])
        for t in (1., .3):
            x = rand((IMAGES, where.shape[-1], CHANNELS))
            branches = [told, less][:1 + n % 2]                        # every second step is guided
            expected = torch.cat([in_parallel(parts, tokens, n, where, known, x, t, of) for of in branches])
            torch.testing.assert_close(ask(torch.cat([x] * len(branches)), t), expected, rtol=0, atol=1e-9)
        reader.tell(n, where, taken(tokens, where), n + 1 == len(order))
        known.scatter_(1, layout.entity_ids[where].expand(IMAGES, -1), True)


@pytest.mark.parametrize('layout', TRIED_ON)
@pytest.mark.parametrize('context, head, block', TRIED)
@torch.no_grad()
def test_nothing_leaks_in_training(context, head, block, layout):
    "What an entity is answered does not depend on the tokens of entities that are drawn later, nor on its own."
    parts = made(context, head, layout, block)
    layout, model = parts.layout, parts.model
    for seed in range(20):                                                          # something must be known
        view, t = parts.context.draw(IMAGES, layout, parts.flow.times, torch.Generator().manual_seed(seed))
        drawn = dict(masked=t == 0, any_order=~view.loss).get(context)                  # what is known, by image
        if drawn is None or drawn.any(1).all(): break
    group, ids, rand = view.group_ids(layout), view.token_ids(layout), noise(4)
    several = (model.pred.draws,) if model.pred.draws > 1 else ()
    own = rand((IMAGES, *several, len(ids), CHANNELS))
    draws = Draws(view, t, rand((IMAGES, len(ids), CHANNELS)), {}, None, [])
    loss = view.loss.expand(IMAGES, -1)

    def answers(tokens):                                                          # [B, S, said], 0 where not asked
        read, time, blank = reading(parts, tokens, draws)
        if not model.pred.apart: return model(read, time, torch.tensor([1, 4]), view, blank) * loss[:, group, None]
        where = view.asked(layout)
        x = taken(own, where)
        made_of = model(read, time, torch.tensor([1, 4]), view, blank, (x, torch.full(x.shape[:-1], .4)))
        found = torch.zeros(IMAGES, len(ids), made_of.shape[-1], dtype=torch.float64)
        flat = made_of.mean(1) if made_of.ndim == 4 else made_of
        found.scatter_(1, where.expand(IMAGES, -1)[..., None].expand_as(flat), flat)
        return found * loss[:, group, None]

    tokens = rand((IMAGES, layout.n_tokens, CHANNELS))
    base, seen = answers(tokens), 0
    for m in range(layout.n_entities):
        other = tokens.clone()
        other[:, layout.slices[m]] += 1
        moved = (answers(other) - base).abs().amax(-1) > 1e-9                      # [B, S]
        for b, g in itertools.product(range(IMAGES), range(len(view.entity))):
            if not loss[b, g]: continue
            n, changed = int(view.entity[g]), bool(moved[b, group == g].any())
            if isinstance(parts.context, MaskedContext):
                asked = bool(loss[b, m]) and not model.pred.apart                  # a set is drawn together
                allowed = asked or t[b, m] == 0
            elif isinstance(parts.context, AnyOrderContext):
                allowed = bool(drawn[b, m]) or m == n and not model.pred.apart
            else: allowed = m < n or m == n and not model.pred.apart
            assert allowed or not changed, f'entity {m} leaks into {n} of image {b}'
            seen += changed
    assert seen, 'nothing is seen at all'


@pytest.mark.parametrize('context, head', PAIRS)
@torch.no_grad()
def test_known_entities_need_not_be_asked_for(context, head):
    "A reader that is only told of an entity reads it like one that was asked for it first."
    parts, answers = made(context, head, 'antidiagonal'), []
    layout, model, labels = parts.layout, parts.model, torch.tensor([1, 4])
    tokens = noise(1)((IMAGES, layout.n_tokens, CHANNELS))
    for asks_first in (True, False):
        reader, order = parts.context.reader(model, labels, IMAGES), parts.context.order(IMAGES, layout, noise(2))
        for n, where in enumerate(order[:3]):
            if asks_first: reader.ask(n, where, [1., 0.])
            reader.tell(n, where, taken(tokens, where), last=False)
        answers.append(reader.ask(3, order[3], [1., 0.])(noise(3)((IMAGES, order[3].shape[-1], CHANNELS)), .4))
    torch.testing.assert_close(*answers, rtol=0, atol=1e-9)


ANY = [('any_order', 'linear'), ('any_order', 'token_mlp'), ('masked', 'linear'), ('masked', 'token_mlp')]


@pytest.mark.parametrize('context, head', [('random', 'linear'), ('clean', 'token_mlp'), ('causal', 'token_mlp'), *ANY])
@pytest.mark.parametrize('layout', ['cell', 'antidiagonal'])
def test_told_or_drawn_is_the_same(context, head, layout):
    "What was drawn before, given as known instead: the same image, without the cost of what is known."
    parts = made(context, head, layout)
    model, e = parts.model, parts.layout.n_entities
    order = dict(order=list(range(e))) if context in ('any_order', 'masked') else {}
    how = dict(context=parts.context, sampler='sde', steps=3, guidance=2., guidance_schedule='constant', **order)
    rand = noise(6)
    starts = [rand((IMAGES, size, CHANNELS)) for size in parts.layout.sizes for _ in range(3)]
    queue = iter(starts)
    whole = generate(model, torch.tensor([1, 4]), randn=lambda shape: next(queue), **how)
    for known in (1, e // 2, e):
        mask = torch.zeros(16, dtype=torch.bool)
        mask[torch.cat(parts.layout.parts[:known])] = True
        queue = iter(starts[3 * known:])
        out = generate(model, torch.tensor([1, 4]), randn=lambda shape: next(queue),
                       known=(whole.latents, mask.view(4, 4)), **how)
        torch.testing.assert_close(out.latents, whole.latents, rtol=0, atol=1e-5)
        assert torch.equal(out.latents.flatten(2)[..., mask], whole.latents.flatten(2)[..., mask])
        assert out.nfe == whole.nfe * (e - known) // e and out.reads <= whole.reads


@pytest.mark.parametrize('context, head', ANY)
def test_what_is_known_is_seen_from_the_start(context, head):
    "Where any order is read: all known entities come first, each image's own, and the rest in the order asked for."
    parts, labels, g = made(context, head, 'cell'), torch.tensor([1, 4]), torch.Generator().manual_seed(0)
    given, mask = torch.randn(IMAGES, CHANNELS, 4, 4, generator=g), torch.zeros(IMAGES, 4, 4, dtype=torch.bool)
    mask[0, 2:], mask[1, :, 2:] = True, True                                      # cells 2 and 3; cells 1 and 3
    how = dict(context=parts.context, sampler='euler', steps=2, trajectory=True)
    start = noise(8)((IMAGES, 4, CHANNELS))
    out = generate(parts.model, labels, known=(given, mask), order=[1, 3, 0, 2], randn=lambda shape: start, **how)
    drawn = torch.stack([e.where[:, 0] // 4 for e in out.trajectory], 1)
    assert drawn.tolist() == [[3, 2, 1, 0], [1, 3, 0, 2]] and out.nfe == 4
    other, cell = given.clone(), parts.layout.parts[3]
    other.flatten(2)[:, :, cell] += 1                                             # it is last in the layout's order
    again = generate(parts.model, labels, known=(other, mask), order=[1, 3, 0, 2], randn=lambda shape: start, **how)
    moved = (again.latents - out.latents).abs().flatten(2).amax(1) > 1e-6         # [B, 16]
    assert moved[:, parts.layout.parts[0]].all() and moved[0, parts.layout.parts[1]].all()
    alone = generate(parts.model, labels[1:], known=(given[1:], mask[1:]), order=[1, 3, 0, 2],
                     randn=lambda shape: start[1:], **how)
    torch.testing.assert_close(alone.latents, out.latents[1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize('context, head', ANY)
def test_an_order_for_each_image(context, head):
    "A batch in orders of its own is each image alone in its order; a cached reader is refused before any work."
    parts, labels, start = made(context, head, 'cell'), torch.tensor([1, 4]), noise(9)((IMAGES, 4, CHANNELS))
    orders, how = torch.tensor([[2, 0, 3, 1], [1, 2, 0, 3]]), dict(sampler='heun', steps=2, guidance=1.5)
    out = generate(parts.model, labels, context=parts.context, order=orders, randn=lambda shape: start, **how)
    for b in range(IMAGES):
        one = generate(parts.model, labels[b:b + 1], context=parts.context, order=orders[b].tolist(),
                       randn=lambda shape: start[b:b + 1], **how)
        torch.testing.assert_close(one.latents, out.latents[b:b + 1], rtol=0, atol=1e-5)
    other = generate(parts.model, labels, context=parts.context, order=orders.flip(0), randn=lambda shape: start, **how)
    assert not torch.allclose(other.latents, out.latents, atol=1e-4)
    with pytest.raises(ValueError, match='draws in the order of the layout, since its reader is cached'):
        generate(made('random', 'linear', 'cell').model, labels, order=orders, randn=None)


def test_codes_and_half_precision_keep_what_is_known():
    "Known codes are overwritten, not drawn; weights of lower precision do not round what is kept."
    g = torch.Generator().manual_seed(0)
    flow = CodesFlow(SimpleNamespace(codebook=torch.randn(7, CHANNELS, generator=g)))
    torch.manual_seed(0)
    layout = make_layout('antidiagonal', 4)
    config = XARConfig(48, (1, 1), heads=2, in_channels=CHANNELS, num_classes=5, init='published', head='logits',
                       out_channels=7, blank=True)
    codes = torch.randint(7, (IMAGES, 4, 4), generator=g)
    given, mask = flow.codebook[codes].movedim(-1, 1), torch.rand(IMAGES, 4, 4, generator=g) < .5
    out = generate(XAR(config, layout), torch.tensor([1, 4]), flow=flow, context=make_context('causal'),
                   sampler='categorical', steps=1, known=(given, mask), guidance=2., generator=g)
    drawn = flow.codes(out.latents.movedim(1, -1))
    assert torch.equal(drawn[mask], codes[mask]) and not torch.equal(drawn, codes)
    kept = layout.split(mask[:, None].float())[..., 0] > 0
    assert torch.equal(out.tokens[kept], layout.split(given)[kept])                  # and later entities see them
    torch.testing.assert_close(out.latents.movedim(1, -1), flow.codebook[drawn], rtol=0, atol=1e-6)
    low, given = made('random', 'linear', 'cell').model.bfloat16(), torch.randn(IMAGES, CHANNELS, 4, 4, generator=g)
    out = generate(low, torch.tensor([1, 4]), steps=2, known=(given, mask), generator=g)
    assert torch.equal(out.latents.movedim(1, -1)[mask], given.movedim(1, -1)[mask])


@torch.no_grad()
def test_a_reader_from_outside_needs_ask_and_tell_only():
    class Alone:
        def __init__(self, reader): self.ask, self.tell = reader.ask, reader.tell

    class Outside(Context):
        def reader(self, model, hints, batch): return Alone(super().reader(model, hints, batch))

    parts, labels = made('random', 'linear', 'cell'), torch.tensor([1, 4])
    a, b = (generate(parts.model, labels, context=c, steps=3, generator=torch.Generator().manual_seed(0))
            for c in (Outside(), None))
    assert torch.equal(a.latents, b.latents) and a.reads == b.reads == a.nfe == 12


@pytest.mark.parametrize('context, head', [p for p in PAIRS if p[1] in APART])
def test_parts_of_a_batch_lose_the_same(context, head):
    "A head apart has its own noise and times: by image, whatever part of the batch a process or a micro-batch has."
    parts = made(context, head, 'antidiagonal')
    parts.codec = SimpleNamespace(stochastic=False, encode=lambda x, g=None: x)
    images, rows = noise(5)((IMAGES, CHANNELS, 4, 4)), noise(6)
    given = {'label': torch.tensor([1, 4])} | {k: rows((IMAGES, *spec['shape'])) for k, spec in MORE.items()}
    stream = lambda *keys: torch.Generator().manual_seed(hash(keys) % 2 ** 31)
    view, t = parts.context.draw(IMAGES, parts.layout, parts.flow.times, torch.Generator().manual_seed(3))
    shape = len(view.token_ids(parts.layout)), CHANNELS

    def of(positions):
        part = slice(positions.start, positions.stop)
        made_of = torch.stack([torch.randn(shape, generator=stream('noise', i)).double() for i in positions])
        none = torch.zeros(len(positions), dtype=torch.bool)
        asked = draw_asked(parts, view, 0, positions, stream)
        drop = dict.fromkeys(given, none)
        draws = Draws(view.part(part), t[part], made_of, drop, none, [0] * len(positions), asked)
        return batch_loss(parts, parts.model, images[part], {k: v[part] for k, v in given.items()}, draws)

    torch.testing.assert_close(of(range(0, 2)), (of(range(0, 1)) + of(range(1, 2))) / 2)
    of(range(0, 2)).backward()
    for name, p in parts.model.named_parameters():                 # DDP and FSDP need every parameter in every step
        unused = name == 'blank' and check_query(parts.context, parts.layout, CHANNELS)
        assert (p.grad is not None) != unused, name


def test_what_does_not_fit_is_refused_in_one_line():
    cases = {
        ('random', 'token_mlp'): 'a head apart',
        ('causal', 'linear'): 'would never read its own noisy state',
    }
    for (context, head), said in cases.items():
        parts = made(context, head, 'cell')
        with pytest.raises(ValueError, match=said) as e: check_generation(parts.model, context=parts.context, steps=2,
                                                                         sampler='euler')
        assert '\n' not in str(e.value)

    class OwnOrder(Context):
        def order(self, batch, layout, randn):
            return [randn((batch, layout.n_tokens, 1))[..., 0].argsort(1)]
    parts = made('random', 'linear', 'cell')
    with pytest.raises(ValueError, match='an order of its own, which a cached reader cannot follow'):
        generate(parts.model, torch.tensor([1, 4]), context=OwnOrder(), steps=2)

    class Twice(Context):
        def order(self, batch, layout, randn): return [torch.arange(layout.n_tokens)] * 2
    with pytest.raises(ValueError, match="must hold each of the 16 tokens once"):
        generate(parts.model, torch.tensor([1, 4]), context=Twice(), steps=2)

    class Forgets(TwoBlocks):
        def forward(self, h, x, t, sizes): return self.say(h)
    HEADS.register('forgets', Forgets)
    parts = made('clean', 'forgets', 'cell')
    view = parts.context.view(parts.layout)
    with pytest.raises(ValueError, match=r"head 'forgets' answers \[2, 16, 3\] where \[2, 2, 16, 3\] is needed"):
        parts.model(torch.zeros(2, 32, 3).double(), torch.zeros(2, 8), torch.tensor([1, 4]), view,
                    view.loss.expand(2, -1), (torch.zeros(2, 2, 16, 3).double(), torch.zeros(2, 2, 16)))
    del HEADS['forgets']
    with pytest.raises(ValueError, match="needs a codec with a codebook"): make_flow('codes', codec=None)
    with pytest.raises(ValueError, match="needs a head apart"):
        parts = made('masked', 'linear', 'cell')
        MaskedContext(ask='all').reader(parts.model, torch.tensor([1]), 1)
