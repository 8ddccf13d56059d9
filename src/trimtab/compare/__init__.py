"""Side by side: two runs, or the arms of a sweep."""

from __future__ import annotations

from trimtab.compare.arms import summarize as summarize
from trimtab.compare.declared import check_arms as check_arms
from trimtab.compare.declared import check_bands as check_bands
from trimtab.compare.runs import MISSING as MISSING
from trimtab.compare.runs import OF_THE_MACHINE as OF_THE_MACHINE
from trimtab.compare.runs import OWN as OWN
from trimtab.compare.runs import Comparison as Comparison
from trimtab.compare.runs import Difference as Difference
from trimtab.compare.runs import LastValue as LastValue
from trimtab.compare.runs import Length as Length
from trimtab.compare.runs import Moment as Moment
from trimtab.compare.runs import Parting as Parting
from trimtab.compare.runs import compare as compare
from trimtab.compare.summary import ArmSummary as ArmSummary
from trimtab.compare.summary import PairSummary as PairSummary
from trimtab.compare.summary import PhaseFacts as PhaseFacts
from trimtab.compare.summary import PhaseSummary as PhaseSummary
from trimtab.compare.summary import Remark as Remark
from trimtab.compare.summary import SweepSummary as SweepSummary
