"""BentoML with two workers, which takes the body as it is sent: ``bentoml serve app:Pictures``."""

import bentoml
from PIL.Image import Image
from steps import Classifier


@bentoml.service(workers=2)
class Pictures:
    def __init__(self):
        self.classifier = Classifier()

    @bentoml.api
    def predict(self, image: Image, /) -> dict[str, float]:
        return self.classifier.answer(image)


@bentoml.service(workers=2)
class Sentences:
    def __init__(self):
        self.classifier = Classifier()

    @bentoml.api
    def predict(self, data: str) -> dict[str, float]:
        return self.classifier.answer(data)
