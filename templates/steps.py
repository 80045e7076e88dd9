"""Segment 5 of tmp.py where the steps are to be other than asked: scale them in each call.

A file fixes its own number of inference steps, so each pipeline's call is given another one, on
both sides alike. The classes are wrapped, since a pipeline may live only inside `inference`. Of
calls within calls only the outermost is changed: what it hands on is changed already.
"""

STEPS_FACTOR = 1.0


def _speedtrap_steps_of(value):
    """So many steps times STEPS_FACTOR, at least 1; None for what is not a whole number."""
    import operator

    try:
        steps = operator.index(value)
    except TypeError:
        return None
    return max(1, int(steps * STEPS_FACTOR + 0.5))


def _speedtrap_leave(reason):
    """Note why a call keeps its steps."""
    if reason not in STEPS["left"] and len(STEPS["left"]) < 4:
        STEPS["left"].append(reason)


def _speedtrap_rescheduled(signature, arguments, keywords):
    """The call's arguments with other steps; None where it is to be made as it is."""
    import inspect

    try:
        bound = signature.bind(*arguments, **keywords)
    except TypeError:
        return None  # the call itself says what is wrong
    more = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            more = bound.arguments.setdefault(name, {})

    def value_of(name):
        parameter = signature.parameters.get(name)
        default = None if parameter is None else parameter.default
        found = bound.arguments.get(name, more.get(name, default))
        return None if found is inspect.Parameter.empty else found

    wanted = {name: value_of(name) for name in STEP_NAMES if value_of(name) is not None}
    for name in OWN_SCHEDULES:
        if value_of(name) is not None:
            _speedtrap_leave(f"the pipeline is called with {name} of its own")
            return None
    for name, value in wanted.items():
        steps = _speedtrap_steps_of(value)
        if steps is None:
            _speedtrap_leave(f"{name} is a {type(value).__name__}")
            return None
        target = bound.arguments if name in signature.parameters else more
        target[name] = steps
    return bound if wanted else None


def _speedtrap_scale_class(kind):
    """Wrap a class's own `__call__`."""
    import functools
    import inspect

    call = vars(kind).get("__call__")
    if not inspect.isfunction(call) or getattr(call, "speedtrap_scales", False):
        return
    signature = inspect.signature(call)

    @functools.wraps(call)
    def scaled(*arguments, **keywords):
        bound = None
        if not getattr(STEPS["within"], "call", False):
            bound = _speedtrap_rescheduled(signature, arguments, keywords)
        if bound is None:
            return call(*arguments, **keywords)
        STEPS["scaled"] += 1
        STEPS["within"].call = True
        try:
            return call(*bound.args, **bound.kwargs)
        finally:
            STEPS["within"].call = False

    scaled.speedtrap_scales = True
    kind.__call__ = scaled


def _speedtrap_scale_steps(names):
    """Wrap the pipelines that there are and will be, and have the report say what came of it."""
    import threading

    from diffusers import DiffusionPipeline

    STEPS["within"] = threading.local()
    kinds = [DiffusionPipeline]
    for kind in kinds:  # it grows meanwhile
        _speedtrap_scale_class(kind)
        kinds.extend(one for one in type.__subclasses__(kind) if one not in kinds)

    def prepare(kind, **keywords):
        super(DiffusionPipeline, kind).__init_subclass__(**keywords)
        _speedtrap_scale_class(kind)

    DiffusionPipeline.__init_subclass__ = classmethod(prepare)
    compose = names["_speedtrap_compose"]
    names["_speedtrap_compose"] = lambda: {
        **compose(),
        "steps": {"scaled": STEPS["scaled"], "left": STEPS["left"]},
    }


_speedtrap_live(
    {
        "STEPS_FACTOR": STEPS_FACTOR,
        "STEP_NAMES": ("num_inference_steps", "prior_num_inference_steps"),
        "OWN_SCHEDULES": ("timesteps", "sigmas"),
        "STEPS": {"scaled": 0, "left": [], "within": None},
    },
    _speedtrap_steps_of,
    _speedtrap_leave,
    _speedtrap_rescheduled,
    _speedtrap_scale_class,
    _speedtrap_scale_steps,
)["_speedtrap_scale_steps"](_speedtrap_names)
