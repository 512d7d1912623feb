import pytest


@pytest.fixture(params=["gaussian", "categorical", "masked multicategorical", "masked bernoulli"])
def distribution(request):
    return request.param
