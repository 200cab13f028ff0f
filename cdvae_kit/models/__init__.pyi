from .cdvae import CDVAE as CDVAE
from .config import CDVAEConfig as CDVAEConfig
from .latent_predictor import LatentPredictor as LatentPredictor
from .predictor_config import LatentPredictorConfig as LatentPredictorConfig
from .predictor_config import PropertyPredictorConfig as PropertyPredictorConfig
from .pretrained import pretrained_names as pretrained_names
from .property_predictor import PropertyPrediction as PropertyPrediction
from .property_predictor import PropertyPredictor as PropertyPredictor
